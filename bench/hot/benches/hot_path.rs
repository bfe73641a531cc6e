//! `cargo bench -p keystone-hot-path`: what each part of an event's path takes, in time. The guard counts instructions of the same rounds.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keystone_hot_path::CASES;

fn hot_path(c: &mut Criterion) {
    let mut group = c.benchmark_group("hot-path");
    for case in CASES {
        group.throughput(Throughput::Elements(case.events));
        let mut round = (case.make)();
        group.bench_function(case.name, |bencher| bencher.iter(&mut round));
    }
    group.finish();
}

criterion_group!(benches, hot_path);
criterion_main!(benches);
