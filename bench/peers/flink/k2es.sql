-- Flink SQL 2.2.1: events -> filter+project -> Elasticsearch _bulk, index out-flink, _id = event_id, at-least-once
-- Run with the SQL client THIS_FILE
SET 'pipeline.name' = 'flink-k2es';
SET 'parallelism.default' = '2';
SET 'execution.checkpointing.interval' = '5s';
SET 'execution.checkpointing.mode' = 'AT_LEAST_ONCE';
SET 'pipeline.object-reuse' = 'true';
SET 'table.exec.sink.not-null-enforcer' = 'DROP';
SET 'table.dml-sync' = 'true';

-- Source: JSON events; only the columns named here are decoded.
CREATE TEMPORARY TABLE events (
  id STRING,
  `type` STRING,
  `user` ROW<id BIGINT>,
  content ROW<title STRING>,
  geo ROW<country STRING>,
  duration_ms BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = '@IN@',
  'properties.bootstrap.servers' = '@BROKERS@',
  'properties.group.id' = '@GROUP@',
  'scan.startup.mode' = 'group-offsets',           -- resumes at the offsets committed at the last checkpoint
  'properties.auto.offset.reset' = 'earliest',     -- a new group starts at the beginning
  'properties.fetch.max.bytes' = '52428800',
  'properties.max.partition.fetch.bytes' = '10485760',
  'properties.fetch.min.bytes' = '65536',
  'properties.fetch.max.wait.ms' = '100',
  'properties.max.poll.records' = '5000',
  'properties.receive.buffer.bytes' = '4194304',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
);

CREATE TEMPORARY TABLE out_t (
  event_id STRING, `user` BIGINT, title STRING, country STRING, duration_ms BIGINT,
  PRIMARY KEY (event_id) NOT ENFORCED            -- becomes _id; drop this line for auto ids
) WITH (
  'connector' = 'elasticsearch-8',
  'hosts' = '@ELASTICSEARCH@',
  'index' = '@OUT@',
  'sink.delivery-guarantee' = 'at-least-once',
  'sink.bulk-flush.max-actions' = '5000',
  'sink.bulk-flush.max-buffered-actions' = '50000',
  'sink.bulk-flush.max-size' = '5mb',
  'sink.bulk-flush.interval' = '200ms'
);

INSERT INTO out_t
SELECT id, `user`.id, content.title, geo.country, duration_ms
FROM events
WHERE `type` = 'play' AND duration_ms > 30000;
