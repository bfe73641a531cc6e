//! The one transaction of a producer: how far it is, and what an error of its calls asks for. Its calls block.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;

use super::PATIENCE;
use crate::kafka::producer::Client;
use crate::kafka::refusal::remedy;
use crate::{Cause, JointCommit, SinkError};

/// How far the commit of the open transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    Not,
    /// The offsets are to be sent, then the transaction ends. Nothing more may enter.
    Begun,
    /// Kafka was asked to end the transaction, and may have done it.
    Asked,
    /// The worker has given the events up while Kafka may have committed them.
    Unknown,
}

/// The one transaction of the producer. Its calls block.
pub(super) struct Stage {
    /// The producer for which transactions were initialised.
    pub(super) client: Option<Arc<Client>>,
    pub(super) open: bool,
    pub(super) commit: Commit,
    /// The last commit begun. One that was given up is never begun again, with another transaction.
    pub(super) last: u64,
    /// Why the open transaction can only be aborted.
    pub(super) broken: Option<Cause>,
}

/// What an error of the transaction's calls asks for.
pub(super) enum Failed {
    /// Call again.
    Again(KafkaError),
    /// Abort the transaction.
    Abort(KafkaError),
    /// The producer is at its end.
    Ended(KafkaError),
    /// Nor would another producer get further.
    Refused(RDKafkaErrorCode, KafkaError),
}

pub(super) fn classify(error: KafkaError) -> Failed {
    let KafkaError::Transaction(detail) = &error else {
        return match error {
            KafkaError::Flush(_) => Failed::Again(error),
            _ => Failed::Abort(error),
        };
    };
    if remedy(detail.code()).is_some() {
        Failed::Refused(detail.code(), error)
    } else if detail.is_fatal() {
        Failed::Ended(error)
    } else if detail.txn_requires_abort() {
        Failed::Abort(error)
    } else if detail.is_retriable() || detail.code() == RDKafkaErrorCode::OperationTimedOut {
        Failed::Again(error)
    } else {
        Failed::Abort(error)
    }
}

impl Stage {
    pub(super) fn new() -> Stage {
        Stage {
            client: None,
            open: false,
            commit: Commit::Not,
            last: 0,
            broken: None,
        }
    }

    /// The producer was replaced, and with it the transaction is gone.
    pub(super) fn forget(&mut self) {
        (self.open, self.commit, self.client) = (false, Commit::Not, None);
    }

    pub(super) fn usable(&self) -> Result<(), SinkError> {
        if self.commit == Commit::Unknown {
            return Err(SinkError::Fatal(unknown(
                "its events were given up meanwhile",
            )));
        }
        match &self.broken {
            Some(cause) => Err(SinkError::Rewind(cause.clone())),
            None => Ok(()),
        }
    }

    /// Has Kafka end what an earlier producer of this id left open.
    pub(super) fn initialise(
        &mut self,
        client: &Arc<Client>,
        at_most: Duration,
    ) -> KafkaResult<()> {
        let known = |known: &Arc<Client>| Arc::ptr_eq(known, client);
        if !self.client.as_ref().is_some_and(known) {
            client.init_transactions(at_most)?;
            self.client = Some(client.clone());
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, client: &Arc<Client>) -> KafkaResult<()> {
        if self.open {
            return Ok(());
        }
        self.initialise(client, PATIENCE)?;
        client.begin_transaction()?;
        self.open = true;
        Ok(())
    }

    pub(super) fn commit(&mut self, client: &Client, joint: &JointCommit) -> KafkaResult<()> {
        if self.commit != Commit::Asked {
            self.commit = Commit::Begun;
            client.send_offsets_to_transaction(&joint.offsets, &joint.group, PATIENCE)?;
            self.commit = Commit::Asked;
        }
        client.commit_transaction(PATIENCE)?;
        self.commit = Commit::Not;
        self.open = false;
        Ok(())
    }

    /// Why librdkafka has broken the open transaction off, where it has. It says so only to who calls, and to begin another one in it does
    /// nothing but fail: with that error, or with another one while the transaction is sound.
    pub(super) fn broken_by(&self) -> Option<RDKafkaErrorCode> {
        let client = self.client.as_ref().filter(|_| self.open)?;
        match client.begin_transaction() {
            Err(KafkaError::Transaction(detail))
                if detail.txn_requires_abort() || detail.is_fatal() =>
            {
                Some(detail.code())
            }
            _ => None,
        }
    }

    pub(super) fn abort(&mut self) -> KafkaResult<()> {
        if let (true, Some(client)) = (self.open, &self.client) {
            client.abort_transaction(PATIENCE)?;
        }
        self.open = false;
        self.commit = Commit::Not;
        Ok(())
    }
}

/// The text of an error after which nobody knows.
pub(super) fn unknown(detail: &str) -> String {
    format!(
        "whether kafka has committed the last transaction is not known: {detail}; the worker ends, and the next one reads on from what is committed: nothing is lost, nothing is twice"
    )
}
