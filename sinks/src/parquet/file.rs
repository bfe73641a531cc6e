//! One Parquet file being written: rows in, encoded row groups out to the store.

use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::errors::ParquetError;

use super::encoder::{Codec, Encoder};
use super::files::Why;
use super::manifest::Closed;
use super::store::{Store, StoreError, Upload};
use crate::batch::BatchId;

/// Rows wait for the encoder until they are about this much.
const WAITING_BYTES: usize = 512 << 10;

/// An open file of one partition.
pub(super) struct OpenFile {
    pub(super) partition: String,
    pub(super) name: String,
    schema: SchemaRef,
    codec: Codec,
    /// From the first rows on, which tell how they are best encoded.
    encoder: Option<Encoder>,
    upload: Upload,
    /// Rows not given to the encoder yet. A row group in progress costs memory for each column, however few its rows: a file that gets
    /// few rows does without.
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    pub(super) rows: u64,
    pub(super) opened: Instant,
    pub(super) touched: Instant,
    /// Batches with rows in this file.
    pub(super) batches: Vec<BatchId>,
}

impl OpenFile {
    pub(super) async fn create(
        store: &Store,
        partition: &str,
        name: String,
        schema: SchemaRef,
        codec: Codec,
    ) -> Result<OpenFile, StoreError> {
        let upload = store.create(partition, &name).await?;
        let now = Instant::now();
        Ok(OpenFile {
            partition: partition.to_owned(),
            name,
            schema,
            codec,
            encoder: None,
            upload,
            waiting: Vec::new(),
            waiting_bytes: 0,
            rows: 0,
            opened: now,
            touched: now,
            batches: Vec::new(),
        })
    }

    pub(super) async fn append(&mut self, rows: RecordBatch) -> Result<(), StoreError> {
        self.rows += rows.num_rows() as u64;
        self.touched = Instant::now();
        self.waiting_bytes += rows.get_array_memory_size();
        self.waiting.push(rows);
        if self.waiting_bytes >= WAITING_BYTES {
            self.with_encoder(|_| Ok(())).await?;
        }
        Ok(())
    }

    /// Ends the row group and writes it out, to free its memory.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.with_encoder(Encoder::end_row_group).await
    }

    /// Gives the rows that wait to the encoder, then does `after`, and hands what is finished to the store.
    async fn with_encoder(
        &mut self,
        after: impl FnOnce(&mut Encoder) -> Result<(), ParquetError>,
    ) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let done = super::blocking(|| {
            let encoder = match &mut self.encoder {
                Some(encoder) => encoder,
                None => {
                    let encoder = Encoder::new(self.schema.clone(), self.codec, &waiting)?;
                    self.encoder.insert(encoder)
                }
            };
            waiting.iter().try_for_each(|rows| encoder.write(rows))?;
            after(encoder)?;
            Ok(encoder.take_finished())
        });
        for chunk in done.map_err(|error| encoding(&self.name, error))? {
            self.upload.append(chunk).await?;
        }
        Ok(())
    }

    /// Ends the file and publishes it; answers with its size in bytes.
    pub(super) async fn publish(&mut self) -> Result<u64, StoreError> {
        self.with_encoder(Encoder::end).await?;
        self.upload.publish().await?;
        Ok(self.upload.written())
    }

    /// Ends the file, durable and hidden, to be published later.
    pub(super) async fn close(&mut self, why: Why) -> Result<Closed, StoreError> {
        self.with_encoder(Encoder::end).await?;
        let upload = self.upload.close().await?;
        Ok(Closed {
            partition: self.partition.clone(),
            name: self.name.clone(),
            rows: self.rows,
            bytes: self.upload.written(),
            why,
            upload,
        })
    }

    pub(super) async fn abandon(self) {
        self.upload.abandon().await;
    }

    /// Size of the file if it ended now, roughly and without the rows that wait.
    pub(super) fn size(&self) -> u64 {
        let encoder = self.encoder.as_ref().map_or(0, Encoder::size);
        self.upload.written() + encoder as u64
    }

    /// Bytes held in memory.
    pub(super) fn memory(&self) -> usize {
        self.unflushed() + self.upload.buffered()
    }

    /// Bytes that [`OpenFile::flush`] would free.
    pub(super) fn unflushed(&self) -> usize {
        let encoder = self.encoder.as_ref().map_or(0, Encoder::memory);
        self.waiting_bytes + encoder
    }
}

fn encoding(name: &str, error: ParquetError) -> StoreError {
    StoreError {
        reason: "parquet_failed",
        detail: format!("encoding the file {name}: {error}"),
    }
}
