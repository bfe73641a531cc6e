//! A Produce request written byte by byte, for a record that no client of ours would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use keystone_tests::{Kafka, Result};

/// One record with one header, by version 3 of Kafka's Produce request.
pub(crate) fn produce_by_hand(
    kafka: &Kafka,
    topic: &str,
    value: &[u8],
    header: &[u8],
) -> Result<()> {
    let records = record_batch(value, header);
    let mut request = Vec::new();
    request.extend(0_i16.to_be_bytes()); // Produce
    request.extend(3_i16.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // correlation
    put_text(&mut request, b"by hand");
    request.extend((-1_i16).to_be_bytes()); // no transaction
    request.extend((-1_i16).to_be_bytes()); // acks=all
    request.extend(10_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // one topic
    put_text(&mut request, topic.as_bytes());
    request.extend(1_i32.to_be_bytes()); // one partition
    request.extend(0_i32.to_be_bytes());
    request.extend((records.len() as i32).to_be_bytes());
    request.extend(records);
    let mut stream = TcpStream::connect(kafka.bootstrap())?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&(request.len() as i32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
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

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text);
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
