//! A Produce request written byte by byte, for a record that no client of ours would send.

use keystone_tests::kafka::Request;
use keystone_tests::{Kafka, Result};

const PRODUCE: i16 = 0;

/// One record with one header, by version 3 of Kafka's Produce request.
pub(crate) fn produce_by_hand(
    kafka: &Kafka,
    topic: &str,
    value: &[u8],
    header: &[u8],
) -> Result<()> {
    let records = record_batch(value, header);
    let mut request = Request::new(PRODUCE, 3);
    request.put(&(-1_i16).to_be_bytes()); // no transaction
    request.put(&(-1_i16).to_be_bytes()); // acks=all
    request.put(&10_000_i32.to_be_bytes());
    request.put(&1_i32.to_be_bytes()); // one topic
    request.text(topic);
    request.put(&1_i32.to_be_bytes()); // one partition
    request.put(&0_i32.to_be_bytes());
    request.put(&(records.len() as i32).to_be_bytes());
    request.put(&records);
    let answer = request.ask(&kafka.bootstrap())?;
    // correlation, number of topics, topic, number of partitions, partition, error.
    let error = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[error..error + 2], [0, 0], "Kafka's error code");
    Ok(())
}

fn record_batch(value: &[u8], header: &[u8]) -> Vec<u8> {
    let mut record = vec![0]; // attributes
    put_varint(&mut record, 0); // timestamp delta
    put_varint(&mut record, 0); // offset delta
    put_varint(&mut record, -1); // no key
    put_varint(&mut record, value.len() as i64);
    record.extend(value);
    put_varint(&mut record, 1);
    put_varint(&mut record, header.len() as i64);
    record.extend(header);
    put_varint(&mut record, 1);
    record.push(b'v');
    let mut checked = Vec::new();
    checked.extend(0_i16.to_be_bytes()); // attributes: no compression
    checked.extend(0_i32.to_be_bytes()); // last offset delta
    checked.extend(1_700_000_000_000_i64.to_be_bytes());
    checked.extend(1_700_000_000_000_i64.to_be_bytes());
    checked.extend((-1_i64).to_be_bytes()); // no producer id
    checked.extend((-1_i16).to_be_bytes());
    checked.extend((-1_i32).to_be_bytes());
    checked.extend(1_i32.to_be_bytes()); // one record
    put_varint(&mut checked, record.len() as i64);
    checked.extend(record);
    let mut batch = Vec::new();
    batch.extend(0_i64.to_be_bytes()); // base offset
    batch.extend((checked.len() as i32 + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes()); // leader epoch
    batch.push(2); // magic
    batch.extend(crc32c(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

fn put_varint(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}
