//! One Parquet file being written: rows in, encoded row groups out to the store.

use std::io::{self, Write};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::files::Why;
use super::manifest::Closed;
use super::store::{Store, StoreError, Upload};
use crate::batch::BatchId;

/// A row group is written out when its encoded form is about this large. It is what an open file holds in memory.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// Rows wait for the encoder until they are about this much.
const WAITING_BYTES: usize = 512 << 10;

/// A compressor and a decompressor for each column, measured; the encoder does not count them.
const ZSTD_BYTES: usize = 112 << 10;

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Zstd(i32),
    Snappy,
    None,
}

impl Codec {
    fn to_parquet(self) -> Compression {
        match self {
            // The option's check keeps the level in range.
            Codec::Zstd(level) => Compression::ZSTD(ZstdLevel::try_new(level).unwrap_or_default()),
            Codec::Snappy => Compression::SNAPPY,
            Codec::None => Compression::UNCOMPRESSED,
        }
    }
}

/// An open file of one partition.
pub(super) struct OpenFile {
    pub(super) partition: String,
    pub(super) name: String,
    writer: ArrowWriter<Chunks>,
    upload: Upload,
    /// Rows not given to the encoder yet. A row group in progress costs memory for each column, however few its rows: a file that gets
    /// few rows does without.
    waiting: Vec<RecordBatch>,
    waiting_bytes: usize,
    /// What the encoder holds beside what it tells, while a row group is in progress.
    encoder_bytes: usize,
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
        let properties = WriterProperties::builder()
            .set_compression(codec.to_parquet())
            .set_created_by(concat!("keystone ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        let encoder_bytes = match codec {
            Codec::Zstd(_) => {
                schema
                    .fields()
                    .iter()
                    .map(|field| leaves(field))
                    .sum::<usize>()
                    * ZSTD_BYTES
            }
            Codec::Snappy | Codec::None => 0,
        };
        let writer = match ArrowWriter::try_new(Chunks::default(), schema, Some(properties)) {
            Ok(writer) => writer,
            Err(error) => {
                upload.abandon().await;
                return Err(encoding(&name, error));
            }
        };
        let now = Instant::now();
        Ok(OpenFile {
            partition: partition.to_owned(),
            name,
            writer,
            upload,
            waiting: Vec::new(),
            waiting_bytes: 0,
            encoder_bytes,
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
            self.encode().await?;
        }
        Ok(())
    }

    /// Gives the rows that wait to the encoder.
    async fn encode(&mut self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        super::blocking(|| waiting.iter().try_for_each(|rows| self.writer.write(rows)))
            .map_err(|error| encoding(&self.name, error))?;
        self.pass_on().await
    }

    /// Ends the row group and writes it out, to free its memory.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        self.encode().await?;
        super::blocking(|| self.writer.flush()).map_err(|error| encoding(&self.name, error))?;
        self.pass_on().await
    }

    /// Ends the file and publishes it; answers with its size in bytes.
    pub(super) async fn publish(&mut self) -> Result<u64, StoreError> {
        self.end().await?;
        self.upload.publish().await?;
        Ok(self.upload.written())
    }

    /// Ends the file, durable and hidden, to be published later.
    pub(super) async fn close(&mut self, why: Why) -> Result<Closed, StoreError> {
        self.end().await?;
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

    async fn end(&mut self) -> Result<(), StoreError> {
        self.encode().await?;
        super::blocking(|| self.writer.finish()).map_err(|error| encoding(&self.name, error))?;
        // The encoder's own small buffer.
        self.writer
            .sync()
            .map_err(|error| encoding(&self.name, error.into()))?;
        self.pass_on().await
    }

    pub(super) async fn abandon(self) {
        self.upload.abandon().await;
    }

    /// Size of the file if it ended now, roughly and without the rows that wait.
    pub(super) fn size(&self) -> u64 {
        self.upload.written() + self.writer.in_progress_size() as u64
    }

    /// Bytes held in memory.
    pub(super) fn memory(&self) -> usize {
        self.unflushed() + self.upload.buffered()
    }

    /// Bytes that [`OpenFile::flush`] would free.
    pub(super) fn unflushed(&self) -> usize {
        let encoder = match self.writer.in_progress_rows() {
            0 => 0,
            _ => self.writer.memory_size() + self.encoder_bytes,
        };
        self.waiting_bytes + encoder
    }

    /// Hands what the encoder has finished to the store.
    async fn pass_on(&mut self) -> Result<(), StoreError> {
        for chunk in std::mem::take(&mut self.writer.inner_mut().0) {
            self.upload.append(chunk).await?;
        }
        Ok(())
    }
}

/// What the encoder writes, in pieces: one buffer that doubles would need up to three times the memory while it grows.
#[derive(Debug, Default)]
struct Chunks(Vec<Vec<u8>>);

const CHUNK: usize = 1 << 20;

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.last_mut() {
            Some(last) if last.len() + bytes.len() <= last.capacity().max(CHUNK) => {
                last.extend_from_slice(bytes);
            }
            _ => {
                let mut chunk = Vec::with_capacity(bytes.len().max(64 << 10));
                chunk.extend_from_slice(bytes);
                self.0.push(chunk);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Columns of the file that a column of the table becomes.
fn leaves(field: &Field) -> usize {
    match field.data_type() {
        DataType::List(inner) | DataType::Map(inner, _) => leaves(inner),
        DataType::Struct(fields) => fields.iter().map(|field| leaves(field)).sum(),
        _ => 1,
    }
}

fn encoding(name: &str, error: parquet::errors::ParquetError) -> StoreError {
    StoreError {
        reason: "parquet_failed",
        detail: format!("encoding the file {name}: {error}"),
    }
}
