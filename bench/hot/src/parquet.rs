//! The way of events into Parquet: rows alone, and whole files through the sink's contract.

use std::hint::black_box;

use keystone_sinks::parquet::partition::Partitioning;
use keystone_sinks::parquet::rows::Layout;
use keystone_sinks::parquet::schema::parse_columns;
use tokio::runtime;

use super::{kept_batch, load};
use crate::events::{COLUMNS, PROJECTION};

/// Batches that become one file.
pub(crate) const BATCHES: u64 = 10;

/// A batch decoded into columns.
pub(crate) fn rows() -> Box<dyn FnMut()> {
    let batch = kept_batch();
    let columns = parse_columns(COLUMNS).expect("the columns are right");
    let layout = Layout::new(columns, Partitioning::default());
    Box::new(move || {
        let decoded = layout.decode(batch.events());
        assert!(decoded.is_ok_and(|decoded| black_box(decoded).rejected.is_empty()));
    })
}

/// Batches delivered to a file with zstd level 1, and its publication.
pub(crate) fn file() -> Box<dyn FnMut()> {
    let table = tempfile::tempdir().expect("a directory for the files");
    let (_, sink) = load(&[
        "sink.type=parquet",
        &format!("projection={PROJECTION}"),
        &format!("sink.parquet.location=file://{}", table.path().display()),
        &format!("sink.parquet.schema={COLUMNS}"),
        "sink.parquet.compression=zstd",
        "sink.parquet.compression.level=1",
        "sink.parquet.publish=direct",
    ]);
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let batch = kept_batch();
    Box::new(move || {
        runtime.block_on(async {
            for _ in 0..BATCHES {
                let answer = sink.deliver(&batch).await;
                assert!(answer.is_ok_and(|answer| answer.rejected.is_empty()));
            }
            sink.flush().await.expect("the file is published");
        });
        // The directory lives as long as the round.
        let _ = &table;
    })
}
