//! Makes calls of a sink wait for the [`Limit`], and for the end of a pause that the server asked for.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use keystone_sinks::{Answer, Cause, SinkError};
use metrics::counter;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limit::{Begun, Limit, Load};
use crate::state::lock;

/// Limits how many calls of the sink are under way at once. A worker has one where its sink asks for it.
#[derive(Debug)]
pub struct Limiter {
    state: Mutex<State>,
    /// First come, first served. Its permits, those in use included, are the limit plus the debt: a limit that falls while all are in use.
    room: Semaphore,
}

#[derive(Debug)]
struct State {
    limit: Limit,
    /// Permits that are still out there though the limit has been lowered; they are not given back.
    debt: usize,
    /// No call begins earlier: the server asked for it.
    not_before: Option<Instant>,
}

/// The right to one call; given back when dropped.
#[derive(Debug)]
pub struct Permit<'l> {
    limiter: &'l Limiter,
    permit: Option<SemaphorePermit<'l>>,
    begun: Option<Begun>,
    load: Load,
}

impl Limiter {
    pub fn new(ceiling: usize) -> Limiter {
        let limit = Limit::new(ceiling);
        Limiter {
            room: Semaphore::new(limit.get()),
            state: Mutex::new(State {
                limit,
                debt: 0,
                not_before: None,
            }),
        }
    }

    /// How many calls may be under way now.
    pub fn limit(&self) -> usize {
        lock(&self.state).limit.get()
    }

    /// Waits for room, and for the end of the server's pause. May be dropped at any time.
    pub async fn enter(&self) -> Permit<'_> {
        // The semaphore is never closed; without a permit the call would go ahead unlimited.
        let mut permit = Permit {
            limiter: self,
            permit: self.room.acquire().await.ok(),
            begun: None,
            load: Load::Unknown,
        };
        loop {
            let now = Instant::now();
            let pause = {
                let mut state = lock(&self.state);
                match state.not_before.filter(|until| *until > now) {
                    Some(until) => until,
                    None => {
                        permit.begun = Some(state.limit.begin(now));
                        return permit;
                    }
                }
            };
            tokio::time::sleep_until(pause.into()).await;
        }
    }

    fn asked_to_wait(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut state = lock(&self.state);
        state.not_before = state.not_before.max(Some(until));
    }
}

impl Permit<'_> {
    /// Takes note of what the sink answered to a batch of this many bytes.
    pub fn answered(&mut self, answer: &Result<Answer, SinkError>, bytes: usize) {
        let cause = match answer {
            Ok(answer) => answer.cause.as_ref(),
            Err(SinkError::Retry(cause)) => Some(cause),
            Err(_) => return,
        };
        if let Some(pause) = cause.and_then(|cause| cause.after) {
            self.limiter.asked_to_wait(pause);
        }
        self.load = match cause {
            None => Load::Fine { bytes },
            Some(cause) => load(cause),
        };
    }
}

/// What a retry tells of the sink's load. A server that can't be reached is not overloaded: nothing reached it.
fn load(cause: &Cause) -> Load {
    match cause.reason {
        reason @ ("http_429" | "http_5xx" | "timeout") => Load::Overload(reason),
        _ => Load::Unknown,
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.limiter.state);
        if let Some(begun) = self.begun {
            let before = state.limit.get();
            if let Some(reason) = state.limit.end(begun, Instant::now(), self.load) {
                counter!("keystone_sink_concurrency_decreases_total", "reason" => reason)
                    .increment(1);
            }
            let now = state.limit.get();
            if now < before {
                let taken = self.limiter.room.forget_permits(before - now);
                state.debt += before - now - taken;
            }
            let paid = now.saturating_sub(before).min(state.debt);
            state.debt -= paid;
            let new = now.saturating_sub(before) - paid;
            self.limiter.room.add_permits(new);
        }
        if let Some(permit) = self.permit.take()
            && state.debt > 0
        {
            state.debt -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(reason: &'static str, after: Option<Duration>) -> Result<Answer, SinkError> {
        Err(SinkError::Retry(Cause {
            reason,
            detail: String::new(),
            after,
        }))
    }

    async fn enter_now(limiter: &Limiter) -> Option<Permit<'_>> {
        let mut enter = Box::pin(tokio::task::unconstrained(limiter.enter()));
        match futures::poll!(&mut enter) {
            std::task::Poll::Ready(permit) => Some(permit),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn as_many_enter_as_the_limit_says_also_after_it_moved() {
        let limiter = Limiter::new(10);
        let mut inside = Vec::new();
        while let Some(permit) = enter_now(&limiter).await {
            inside.push(permit);
        }
        assert_eq!(inside.len(), 10);
        for permit in inside.iter_mut() {
            permit.answered(&retry("http_429", None), 1);
        }
        inside.pop();
        assert_eq!(limiter.limit(), 7);
        assert!(enter_now(&limiter).await.is_none(), "nine are inside");
        inside.truncate(7);
        assert!(enter_now(&limiter).await.is_none(), "seven are inside");
        inside.clear();
        for _ in 0..40 {
            while let Some(mut permit) = enter_now(&limiter).await {
                permit.answered(&Ok(Answer::done()), 1);
                inside.push(permit);
            }
            assert_eq!(inside.len(), limiter.limit());
            inside.clear();
        }
        assert_eq!(limiter.limit(), 10);
    }

    #[tokio::test]
    async fn one_that_is_asked_to_wait_makes_all_wait() {
        let limiter = Limiter::new(4);
        let mut permit = limiter.enter().await;
        permit.answered(&retry("http_5xx", Some(Duration::from_secs(3_600))), 1);
        drop(permit);
        assert!(enter_now(&limiter).await.is_none());
        assert_eq!(limiter.limit(), 2);
    }

    #[tokio::test]
    async fn what_never_reached_the_sink_says_nothing_of_its_load() {
        let limiter = Limiter::new(4);
        for answer in [retry("unreachable", None), Ok(Answer::done())] {
            limiter.enter().await.answered(&answer, 1);
            assert_eq!(limiter.limit(), 4);
        }
    }
}
