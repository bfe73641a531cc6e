# The two commands that matter: `make demo` and `make test`. Each brings what is missing on Debian and Ubuntu, and names it elsewhere.

CARGO ?= cargo
EVENTS ?= 100000

.PHONY: demo test faults lint fmt setup-build setup-test clean-servers

## The whole job in one process: a Rust toolchain and a C compiler are enough.
demo: setup-build
	$(CARGO) build -p keystone --bin keystone
	./target/debug/keystone demo --events $(EVENTS)

## Everything, end-to-end tests on real Kafka, Elasticsearch and Hive Metastore included.
test: setup-build setup-test
	$(CARGO) test --workspace

## Every fault under every sink and tradeoff; writes the table of docs/delivery.md. FAULTS names some alone, SEED another seed.
faults: setup-build setup-test
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
