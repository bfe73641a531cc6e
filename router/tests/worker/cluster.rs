//! librdkafka's mock cluster, one for all scenarios.

use std::sync::{Mutex, OnceLock, mpsc};

use keystone::state::lock;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::FutureProducer;

pub(crate) struct Cluster {
    pub(crate) servers: String,
    topics: Mutex<mpsc::Sender<(String, i32, mpsc::Sender<()>)>>,
    pub(crate) producer: FutureProducer,
}

/// The cluster lives on a thread of its own for as long as the process: its handle can't be shared.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let (topics, asked) = mpsc::channel::<(String, i32, mpsc::Sender<()>)>();
        let (ready, servers) = mpsc::channel();
        std::thread::spawn(move || {
            let cluster = MockCluster::new(1).expect("the mock cluster starts");
            ready
                .send(cluster.bootstrap_servers())
                .expect("the test waits");
            for (name, partitions, done) in asked {
                cluster
                    .create_topic(&name, partitions, 1)
                    .expect("the topic is made");
                done.send(()).expect("the test waits");
            }
        });
        let servers: String = servers.recv().expect("the mock cluster is up");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &servers)
            .set("linger.ms", "1")
            .create()
            .expect("a producer can be made");
        Cluster {
            servers,
            topics: Mutex::new(topics),
            producer,
        }
    })
}

pub(crate) fn create_topic(name: &str, partitions: i32) {
    let (done, finished) = mpsc::channel();
    lock(&cluster().topics)
        .send((name.to_owned(), partitions, done))
        .expect("the cluster's thread runs");
    finished.recv().expect("the topic is made");
}
