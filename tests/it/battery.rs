//! The battery of faults in its short form: the cells that promise most, and one of each sink that announces its duplicates, under the faults
//! that break most. `make faults` runs all.

use keystone_tests::Result;
use keystone_tests::battery::{Cell, Fault, Servers, Sink, Tradeoff, run};

const SEED: u64 = 5;

#[test]
fn the_cells_keep_their_promises() -> Result<()> {
    let cells = [
        (Sink::Kafka, Tradeoff::Balanced),
        (Sink::Kafka, Tradeoff::NoDuplicates),
        (Sink::Elasticsearch, Tradeoff::LowLatency),
        (Sink::Elasticsearch, Tradeoff::Balanced),
        (Sink::Elasticsearch, Tradeoff::NoDuplicates),
        (Sink::Parquet, Tradeoff::LowLatency),
        (Sink::Parquet, Tradeoff::NoDuplicates),
    ]
    .map(|(sink, tradeoff)| Cell { sink, tradeoff });
    let mut servers = Servers::start()?;
    let mut problems = Vec::new();
    for fault in [
        Fault::Kill,
        Fault::ComeAndGo,
        Fault::BrokerUnreachable,
        Fault::SinkLate,
    ] {
        for (cell, outcome) in run(&mut servers, fault, &cells, SEED)? {
            eprintln!("{fault:?} {cell:?}: {outcome}");
            problems.extend(
                outcome
                    .problems
                    .iter()
                    .map(|problem| format!("{fault:?} {cell:?}: {problem}")),
            );
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}
