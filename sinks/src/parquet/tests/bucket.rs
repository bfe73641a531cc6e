//! A sink and a bucket that answers as a test says.

use std::io;
use std::pin::pin;
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Failures are counted for the whole process, so there is one bucket at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Answers each request, given its first line, with a status; counts them.
struct Bucket {
    endpoint: String,
    requests: Arc<AtomicUsize>,
    _alone: MutexGuard<'static, ()>,
}

impl Bucket {
    async fn start(status: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Bucket {
        let _alone = ALONE.lock().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (status, requests) = (Arc::new(status), Arc::new(AtomicUsize::new(0)));
        let counter = requests.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (status, counter) = (status.clone(), counter.clone());
                tokio::spawn(async move {
                    let answer = |line: &str| {
                        counter.fetch_add(1, Ordering::Relaxed);
                        status(line)
                    };
                    let _closed = serve(connection, answer).await;
                });
            }
        });
        Bucket {
            endpoint,
            requests,
            _alone,
        }
    }

    fn sink(&self, sets: &[&str]) -> Box<dyn Sink> {
        build(&self.settings(sets), &context()).unwrap()
    }

    fn settings(&self, sets: &[&str]) -> Settings {
        let endpoint = format!("sink.parquet.s3.endpoint={}", self.endpoint);
        let mut all = vec![
            "sink.parquet.location=s3://lake/plays",
            "sink.parquet.s3.access.key.id=id",
            "sink.parquet.s3.secret.access.key=secret",
            &endpoint,
            SCHEMA,
            BY_DAY,
        ];
        all.extend_from_slice(sets);
        settings(&all)
    }
}

/// One request, after which the connection is closed.
async fn serve(connection: TcpStream, answer: impl Fn(&str) -> &'static str) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut request = String::new();
    reader.read_line(&mut request).await?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        match line.trim().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    reader.read_exact(&mut vec![0; length]).await?;
    let status = answer(&request);
    let answer = format!(
        "HTTP/1.1 {status}\r\netag: \"e\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    reader.into_inner().write_all(answer.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_throttles_for_seconds_costs_no_rewind() {
    let begun = OnceLock::new();
    let bucket = Bucket::start(move |_| {
        let begun: &Instant = begun.get_or_init(Instant::now);
        match begun.elapsed() < Duration::from_secs(4) {
            true => "503 Slow Down",
            false => "200 OK",
        }
    })
    .await;
    let sink = bucket.sink(&["sink.parquet.publish=direct"]);
    sink.deliver(&batch(1, [(1, 1)])).await.unwrap();
    assert_eq!(sink.flush().await.unwrap(), [BatchId::new(1)]);
    // Pauses grow: a bucket that throttles is not asked at full speed.
    let requests = bucket.requests.load(Ordering::Relaxed);
    assert!((4..30).contains(&requests), "{requests}");
}

/// A person or the start of the worker waits for the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_a_bucket_that_is_ill_says_so_soon() {
    let bucket = Bucket::start(|_| "500 Internal Server Error").await;
    let sink = bucket.sink(&[]);
    let checked = tokio::time::timeout(Duration::from_secs(10), sink.check());
    let problem = checked.await.expect("an answer in time").unwrap_err();
    assert!(
        problem.contains("sink.parquet.location can't be written") && problem.contains("500"),
        "{problem}"
    );
}

/// Some servers know no `DeleteObjects`, which the client asks for, and tries again for longer than a failing bucket is no problem.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_knows_no_request_for_many_objects_removes_one() {
    let bucket = Bucket::start(|line| match line.contains("?delete") {
        true => "501 Not Implemented",
        false => "200 OK",
    })
    .await;
    let store = options::store(&bucket.settings(&[])).unwrap();
    let (directory, name) = ("_keystone/plays", "a b.json");
    let written = store.write_whole(directory, name, b"{}".to_vec());
    written.await.unwrap();
    let before = bucket.requests.load(Ordering::Relaxed);
    store.remove(directory, name).await.unwrap();
    assert_eq!(bucket.requests.load(Ordering::Relaxed) - before, 1);
    assert_eq!(s3::problem(), None);
}

/// Where a request fails for good, the bucket is there all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_know_a_request_is_there() {
    let bucket =
        Bucket::start(
            |line| match line.contains("?delete") || line.starts_with("DELETE") {
                true => "501 Not Implemented",
                false => "200 OK",
            },
        )
        .await;
    let store = options::store(&bucket.settings(&[])).unwrap();
    let begun = Instant::now();
    let mut removing = pin!(store.remove("_keystone/plays", "a.json"));
    loop {
        tokio::select! {
            removed = &mut removing => break assert!(removed.is_err()),
            () = tokio::time::sleep(Duration::from_millis(20)) => assert_eq!(s3::problem(), None),
        }
    }
    assert!(
        begun.elapsed() > Duration::from_secs(3),
        "it was not tried again"
    );
}

/// S3 refuses a longer key for good.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_file_would_have_too_long_a_key_is_rejected() {
    let bucket = Bucket::start(|line| {
        let path = line.split(' ').nth(1).unwrap().replace("%3D", "=");
        let key = path.trim_start_matches("/lake/").split('?').next();
        match key.unwrap().len() > 1_024 {
            true => "400 Bad Request",
            false => "200 OK",
        }
    })
    .await;
    let keys: Vec<String> = (0..5).map(|key| format!("k{key}={{text}}")).collect();
    let by = format!("sink.parquet.partition.by={}", keys.join(","));
    let sink = bucket.sink(&[&by, "sink.parquet.publish=direct"]);
    let outcome = |length: usize| {
        let sink = &sink;
        async move {
            let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(length));
            let answer = sink.deliver(&batch_of(1, [payload])).await.unwrap();
            sink.flush().await.unwrap();
            answer.rejected
        }
    };
    assert!(outcome(100).await.is_empty());
    let rejected = outcome(220).await;
    assert!(
        rejected[0].reason.contains("the path of its partition has"),
        "{rejected:?}"
    );
    // At each length the event is either written or rejected, and never tried for ever.
    let mut were_rejected = false;
    for length in 150..220 {
        let is_rejected = !outcome(length).await.is_empty();
        assert!(is_rejected || !were_rejected, "{length}");
        were_rejected = is_rejected;
    }
}

/// In an outage each request takes as long as the client's patience, and a rewind or a drain waits.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_file_that_failed_no_other_is_tried() {
    for publish in ["direct", "two-phase"] {
        let bucket = Bucket::start(|_| "403 Forbidden").await;
        let sink = bucket.sink(&[&format!("sink.parquet.publish={publish}")]);
        let rows = (1..=30).map(|day| (i64::from(day), day));
        sink.deliver(&batch(1, rows)).await.unwrap();
        let failed = match publish {
            "direct" => sink.flush().await.map(drop),
            _ => sink.prepare(&Source::default()).await.map(drop),
        };
        let Err(SinkError::Rewind(cause)) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(cause.reason, "s3_denied");
        let requests = bucket.requests.load(Ordering::Relaxed);
        assert!((1..=8).contains(&requests), "{publish}: {requests} of 30");
    }
}
