# Causeway: build, try, test. `make` alone says what there is.
SHELL := /bin/bash
export PATH := $(HOME)/.cargo/bin:$(PATH)
LAB := tests/lab
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
RELEASE := $(TARGET)/release

help: ## Says what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s '	'

setup: ## Installs what building and testing needs; quick when it is there
	@$(LAB)/setup.sh lab

build: ## Builds the programs: causewayd, causeway, causeway-peer
	@$(LAB)/setup.sh
	cargo build --workspace --bins

demo: setup ## Calls from an overlay user to a telephone and back, with a real PBX; ONCE=1 ends after one round
	cargo build --workspace --bins
	@CAUSEWAY_BIN=$(TARGET)/debug $(TARGET)/debug/causeway-demo

test: setup ## Runs every test; ends with the count
	@$(LAB)/run-tests.sh

interop: setup ## Calls between the gateway and every peer of the laboratory, real and scripted
	cargo build --workspace --bins
	@CAUSEWAY_BIN=$(TARGET)/debug $(TARGET)/debug/causeway-interop $(INTEROP)

browser: setup ## A browser with the JavaScript client calls a real PBX through the gateway, and is called
	cargo build -p gateway -p peer --bins
	@CAUSEWAY_BIN=$(TARGET)/debug $(LAB)/node.sh test
	@CAUSEWAY_BIN=$(TARGET)/debug $(LAB)/node.sh browser

nat: setup ## Calls behind NATs of every kind, in network namespaces; writes docs/nat.md; NAT="sym corp" tries these users alone
	cargo build -p gateway -p peer -p tests --bins
	@CAUSEWAY_BIN=$(TARGET)/debug $(TARGET)/debug/causeway-nat $(or $(NAT),--page docs/nat.md)

conformance: setup ## Runs the tests of the conformance checklist; writes docs/conformance.md
	cargo build --workspace --bins --tests
	@CAUSEWAY_BIN=$(TARGET)/debug $(TARGET)/debug/causeway-conformance

bench: setup ## Measures calls per core beside rtpengine, set-up times, idle memory; see docs/performance.md
	cargo build --release -p gateway -p peer -p tests --bins
	CAUSEWAY_BIN=$(RELEASE) $(RELEASE)/causeway-bench $(BENCH)

bench-media: setup ## Measures what media costs in each way it may go, beside libopus and rtpengine
	cargo build --release -p gateway -p peer -p tests --bins
	CAUSEWAY_BIN=$(RELEASE) $(RELEASE)/causeway-bench --media $(BENCH)

bench-signalling: setup ## Measures what a call costs in signalling beside Asterisk and Kamailio, memory, overload
	cargo build --release -p gateway -p peer -p tests --bins
	CAUSEWAY_BIN=$(RELEASE) $(RELEASE)/causeway-bench-signalling $(BENCH)

bench-overlay: setup ## Measures look-ups and call set-up at 20 ms, memory of a user, cost of a leg, presence
	cargo build --release -p tests --bin causeway-bench-overlay
	@$(RELEASE)/causeway-bench-overlay $(BENCH)

quality: setup ## Measures how voices sound on paths that lose packets (PESQ); see docs/performance.md
	cargo build -p gateway -p peer -p tests --bins
	@CAUSEWAY_BIN=$(TARGET)/debug $(TARGET)/debug/causeway-quality $(QUALITY)

scale: setup ## Measures routing and records with 10,000 supernodes in a model, beside real nodes; writes docs/scale.md
	cargo build --release -p tests --bin causeway-scale
	@$(RELEASE)/causeway-scale $(SCALE)

overlay-resilience: setup ## Half of the supernodes killed under calls and look-ups, blocked ways of joining, a partition; writes docs/resilience.md
	cargo build -p tests --bin causeway-resilience
	@$(TARGET)/debug/causeway-resilience $(or $(RESILIENCE),--page docs/resilience.md)

check: ## Format, lints, documentation, licences, shape of the tree
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	cargo test --quiet -p tests --test arrows
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check; \
	  else echo "cargo-deny is not installed: licences and advisories were not checked (cargo install cargo-deny --locked)"; fi
	@if command -v shellcheck >/dev/null; then shellcheck -x -P SCRIPTDIR $(LAB)/*.sh .ci/run; \
	  else echo "shellcheck is not installed: scripts were not checked"; fi

fmt: ## Formats the sources
	cargo fmt --all

clean: ## Removes what was built; what the laboratory fetched stays in its cache
	cargo clean

.PHONY: help setup build demo test interop browser nat conformance bench bench-media bench-signalling bench-overlay quality scale overlay-resilience check fmt clean
