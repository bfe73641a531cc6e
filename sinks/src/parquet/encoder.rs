//! Rows to the bytes of one Parquet file.

use std::collections::HashSet;
use std::io::{self, Write};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::row::{RowConverter, SortField};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{
    DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT, DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT, DEFAULT_PAGE_SIZE,
    DEFAULT_WRITE_BATCH_SIZE, WriterProperties,
};
use parquet::schema::types::ColumnPath;

use super::compressors::zstd_bytes;

/// A row group is written out when its encoded form is about this large. It is what an open file holds in memory.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// Values that the encoder takes at once: a page may be larger by those.
const AT_ONCE: usize = DEFAULT_WRITE_BATCH_SIZE;

/// Rows that are looked at, to see whether a value comes twice.
const SAMPLE: usize = 512;

/// Fewer say nothing.
const LEAST_SAMPLE: usize = 128;

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

/// Encodes the rows of one file.
pub(super) struct Encoder {
    writer: ArrowWriter<Chunks>,
    codec: Codec,
    columns: Vec<Progress>,
    rows: usize,
}

/// What a column of the table has of the row group in progress.
struct Progress {
    /// Columns of the file that it is.
    leaves: usize,
    has_dictionary: bool,
    /// Before they are encoded.
    bytes: usize,
}

impl Progress {
    /// Bytes of its largest page so far, at most, of so many rows.
    fn page(&self, rows: usize) -> usize {
        let bytes = self.bytes / self.leaves.max(1);
        let mean = bytes.div_ceil(rows.max(1));
        let rows = rows.min(DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT);
        let plain = (mean * rows)
            .min(bytes)
            .min(DEFAULT_PAGE_SIZE.max(mean * AT_ONCE));
        // As long as there surely is a dictionary, it is places in there that are written, of fewer than 24 bits.
        match self.has_dictionary && bytes <= DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT {
            true => plain.min(3 * rows),
            false => plain,
        }
    }
}

impl Encoder {
    /// `first` are the first rows of the file. A column whose values are all different there gets no dictionary: it would be as large as
    /// the column and cost a look-up for each value.
    pub(super) fn new(
        schema: SchemaRef,
        codec: Codec,
        first: &[RecordBatch],
    ) -> Result<Encoder, ParquetError> {
        let mut properties = WriterProperties::builder()
            .set_compression(codec.to_parquet())
            .set_created_by(concat!("keystone ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES));
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let is_unique = is_unique(first.iter().map(|rows| rows.column(index)));
            if is_unique {
                let column = ColumnPath::new(vec![field.name().clone()]);
                properties = properties.set_column_dictionary_enabled(column, false);
            }
            columns.push(Progress {
                leaves: leaves(field),
                has_dictionary: !is_unique,
                bytes: 0,
            });
        }
        Ok(Encoder {
            writer: ArrowWriter::try_new(Chunks::default(), schema, Some(properties.build()))?,
            codec,
            columns,
            rows: 0,
        })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        self.writer.write(rows)?;
        let before = std::mem::replace(&mut self.rows, self.writer.in_progress_rows());
        // Else a row group has ended in between; what is left of the rows is little, and left out.
        let all_in_progress = self.rows == before + rows.num_rows();
        for (column, values) in self.columns.iter_mut().zip(rows.columns()) {
            column.bytes = match all_in_progress {
                true => column.bytes + values.to_data().get_slice_memory_size()?,
                false => 0,
            };
        }
        Ok(())
    }

    pub(super) fn end_row_group(&mut self) -> Result<(), ParquetError> {
        self.writer.flush()?;
        self.rows = 0;
        self.columns.iter_mut().for_each(|column| column.bytes = 0);
        Ok(())
    }

    /// Nothing can be written after it.
    pub(super) fn end(&mut self) -> Result<(), ParquetError> {
        self.writer.finish()?;
        // The writer's own small buffer.
        Ok(self.writer.sync()?)
    }

    /// Bytes of the file that are finished since the last call.
    pub(super) fn take_finished(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.writer.inner_mut().0)
    }

    /// Size of the row group in progress if it ended now, roughly, in bytes.
    pub(super) fn size(&self) -> usize {
        self.writer.in_progress_size()
    }

    /// Bytes held in memory, which the end of the row group frees.
    pub(super) fn memory(&self) -> usize {
        match self.writer.in_progress_rows() {
            0 => 0,
            rows => self.writer.memory_size() + self.compressors(rows),
        }
    }

    /// Bytes that the encoder does not count.
    fn compressors(&self, rows: usize) -> usize {
        let Codec::Zstd(level) = self.codec else {
            return 0;
        };
        let columns = self.columns.iter();
        columns
            .map(|column| column.leaves * zstd_bytes(level, column.page(rows)))
            .sum()
    }
}

/// Whether no value of a flat column comes twice among its first ones. (Of a column with fewer than some ten thousand values, one would:
/// the birthday paradox.)
fn is_unique<'a>(pieces: impl Iterator<Item = &'a ArrayRef>) -> bool {
    let mut samples = Vec::new();
    let mut left = SAMPLE;
    for piece in pieces {
        if piece.data_type().is_nested() {
            return false;
        }
        let sample = piece.slice(0, piece.len().min(left));
        let fields = vec![SortField::new(sample.data_type().clone())];
        let rows = RowConverter::new(fields)
            .and_then(|converter| converter.convert_columns(std::slice::from_ref(&sample)));
        let Ok(rows) = rows else {
            return false;
        };
        left -= sample.len();
        samples.push((rows, sample));
        if left == 0 {
            break;
        }
    }
    let mut values = samples.iter().flat_map(|(rows, sample)| {
        let rows = rows.iter().enumerate();
        rows.filter_map(|(row, value)| sample.is_valid(row).then_some(value))
    });
    let mut seen = HashSet::with_capacity(SAMPLE);
    values.all(|value| seen.insert(value)) && seen.len() >= LEAST_SAMPLE
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

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, StructArray};
    use arrow::compute::concat_batches;
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn unique(pieces: &[ArrayRef]) -> bool {
        is_unique(pieces.iter())
    }

    fn numbers(numbers: impl IntoIterator<Item = usize>) -> ArrayRef {
        let numbers = numbers.into_iter().map(|number| number as i64);
        Arc::new(Int64Array::from_iter_values(numbers))
    }

    #[test]
    fn a_column_is_unique_if_no_value_of_a_good_sample_comes_twice() {
        assert!(unique(&[numbers(0..LEAST_SAMPLE)]));
        assert!(!unique(&[numbers(1..LEAST_SAMPLE)]), "too few to say");
        assert!(!unique(&[numbers(0..500), numbers(499..600)]));
        assert!(
            unique(&[numbers(0..500), numbers(500..3000), numbers(0..3000)]),
            "beyond the sample"
        );
        let texts = (0..1000).map(|n| (n % 3 > 0).then(|| n.to_string()));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
        assert!(unique(std::slice::from_ref(&texts)), "nulls are no values");
        let field = Arc::new(Field::new("text", DataType::Utf8, true));
        let nested: ArrayRef = Arc::new(StructArray::from(vec![(field, texts)]));
        assert!(!unique(&[nested]), "a nested column");
    }

    /// Else open files would take many times the memory that they may.
    #[test]
    fn compressors_count_as_memory_by_level_and_pages_until_the_row_group_ends() {
        let memory = |codec: Codec, rows: usize, times: usize| {
            let columns: [(&str, ArrayRef); 1] = [("id", numbers(0..rows))];
            let rows = RecordBatch::try_from_iter(columns).unwrap();
            let first = std::slice::from_ref(&rows);
            let mut encoder = Encoder::new(rows.schema(), codec, first).unwrap();
            (0..times).for_each(|_| encoder.write(&rows).unwrap());
            let taken = encoder.compressors(encoder.writer.in_progress_rows());
            assert!(encoder.memory() >= taken);
            encoder.end_row_group().unwrap();
            assert_eq!(encoder.memory(), 0);
            taken
        };
        assert_eq!(memory(Codec::Snappy, 20_000, 1), 0);
        let level = |level| memory(Codec::Zstd(level), 20_000, 1);
        assert!(level(1) < level(3) && 2 * level(3) < level(9) && level(9) < level(22));
        assert!(3 * memory(Codec::Zstd(3), 200, 1) < level(3));
        // Pages have as many rows at most.
        assert_eq!(memory(Codec::Zstd(3), 20_000, 5), level(3));
    }

    #[test]
    fn unique_columns_have_no_dictionary_and_all_are_read_as_written() {
        let rows = |range: Range<usize>| {
            let country = Int64Array::from_iter_values(range.clone().map(|row| row as i64 % 7));
            let columns: [(&str, ArrayRef); 2] =
                [("an.id", numbers(range)), ("country", Arc::new(country))];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let first = [rows(0..300), rows(300..2000)];
        let schema = first[0].schema();
        let mut encoder = Encoder::new(schema.clone(), Codec::Zstd(1), &first).unwrap();
        first.iter().for_each(|rows| encoder.write(rows).unwrap());
        encoder.end_row_group().unwrap();
        encoder.write(&rows(2000..2100)).unwrap();
        encoder.end().unwrap();
        let file = Bytes::from(encoder.take_finished().concat());
        let file = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for group in file.metadata().row_groups() {
            let has_dictionary = |column: usize| group.column(column).dictionary_page_offset();
            assert_eq!(has_dictionary(0), None);
            assert!(has_dictionary(1).is_some());
        }
        let read: Vec<RecordBatch> = file.build().unwrap().map(Result::unwrap).collect();
        assert_eq!(concat_batches(&schema, &read).unwrap(), rows(0..2100));
    }
}
