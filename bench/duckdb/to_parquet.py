"""The worker's Parquet job without Kafka: filter and projection of a local NDJSON file to one Parquet file (zstd level 1), on one thread.

    to_parquet.py EVENTS.ndjson OUT.parquet FIGURES

Writes processor and wall time of the query alone, in seconds, to the file FIGURES.
"""

import sys
import time

import duckdb

QUERY = """
COPY (
    SELECT id AS event_id, "user".id AS "user", content.title AS title, geo.country AS country, duration_ms, ts
    FROM read_ndjson('{events}', columns = {{
        id: 'VARCHAR', type: 'VARCHAR', ts: 'VARCHAR', user: 'STRUCT(id BIGINT)', content: 'STRUCT(title VARCHAR)',
        geo: 'STRUCT(country VARCHAR)', duration_ms: 'BIGINT'
    }})
    WHERE type = 'play' AND duration_ms > 30000
) TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)
"""

events, out, figures = sys.argv[1:]
database = duckdb.connect(config={"threads": 1})
cpu, wall = time.process_time(), time.monotonic()
database.execute(QUERY.format(events=events, out=out))
with open(figures, "w") as file:
    file.write(f"{time.process_time() - cpu} {time.monotonic() - wall}\n")
