# The two commands that matter: `make demo` and `make test`. Each brings what is missing on Debian and Ubuntu, and names it elsewhere.

CARGO ?= cargo
EVENTS ?= 100000
BENCH ?=
GUARD ?=

.PHONY: demo test bench bench-guard build-release faults lint fmt setup-build setup-test clean-servers

## The whole job in one process: a Rust toolchain and a C compiler are enough.
demo: setup-build
	$(CARGO) build -p keystone --bin keystone
	./target/debug/keystone demo --events $(EVENTS)

## Everything, end-to-end tests on real Kafka, Elasticsearch and Hive Metastore included.
test: setup-build setup-test
	$(CARGO) test --workspace

## What the worker costs beside the floors, into docs/benchmarks.md; options by BENCH="--events 100000 --jobs kcat,kafka --repeats 1".
# PEER_VECTOR=<binary> or PEER_REDPANDA_CONNECT=<binary> adds the peers, into their own table there; BENCH=--peers runs them alone.
# The worker is a release build. The runner takes the profile and the features of `make test`, so that no dependency is compiled twice.
bench: setup-build setup-test build-release
	@tests/setup.sh bench
	$(CARGO) build --workspace --bin keystone-bench --test it
	./target/debug/keystone-bench $(BENCH)
	./target/release/hot-path check $(GUARD)

## The guard alone: instructions of the hot path beside bench/hot/baseline.txt; GUARD=--accept makes them the new baseline.
bench-guard: setup-build build-release
	@tests/setup.sh bench
	./target/release/hot-path check $(GUARD)

# Together, so that both are of the same build.
build-release:
	$(CARGO) build --release -p keystone -p keystone-hot-path --bin keystone --bin hot-path

## Every fault under every sink and tradeoff; writes the table of docs/delivery.md. FAULTS names some alone, SEED another seed.
# Two of them need root: a full disk is a small file system that is mounted for it, and libfaketime is installed for a clock that jumps.
faults: setup-build setup-test
	@tests/setup.sh faults
	$(CARGO) test --workspace --test faults -- $(FAULTS)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt:
	$(CARGO) fmt --all

setup-build:
	@tests/setup.sh build

setup-test:
	@tests/setup.sh test

## The downloaded test servers; `make test` fetches them again.
clean-servers:
	rm -rf .servers
