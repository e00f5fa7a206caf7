# What people and CI run. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
# Warnings are errors here and nowhere else, so that an editor's build is not stopped by one.
DENY := -D warnings
SEEDS ?= 20000
DPUS ?= 2
ROUNDS ?= 5
FLEETS ?= 200
DEVICES ?= 1000,5000,20000
CLUSTER ?=
SOFT ?=
# Most tests wait for other programs most of the time, so more of them go at once than there are processors.
export RUST_TEST_THREADS ?= 4

.PHONY: help test check check-soft control-plane open-vswitch dpdk qemu guest chromium cluster soft fmt lint docs unit tests-a-o tests-p-z generate soak soak-simulation soak-switch soak-fleet soak-datapath soak-guests bench-switch bench-fleet bench-datapath deny

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

test: check fmt lint docs control-plane open-vswitch dpdk qemu guest chromium unit ## everything that decides whether a change lands

check: ## are the tools here that the tests need?
	@tests/prerequisites.sh

control-plane: ## etcd and kube-apiserver for the tests, built once from their Go modules
	@tests/control-plane/build.sh >/dev/null

open-vswitch: ## Open vSwitch for the tests, fetched once where none is installed
	@tests/open-vswitch/get.sh >/dev/null

dpdk: ## DPDK's testpmd for the tests, fetched once where none is installed
	@tests/dpdk/get.sh >/dev/null

qemu: ## QEMU for the tests, fetched once where none is installed that is new enough
	@tests/qemu/get.sh >/dev/null

guest: ## the guest that QEMU boots in the tests, put together once from Debian packages
	@tests/guest/build.sh >/dev/null

chromium: ## Chromium for the tests, fetched once where none is installed
	@tests/chromium/get.sh >/dev/null

cluster: check control-plane ## Kubernetes on loopback with an operator and DPUS (2) simulated DPUs, until Ctrl-C
	$(CARGO) build -q --locked -p virtnet-agent -p virtnet-operator --bins
	@$(CARGO) run -q --locked -p virtnet-tests --bin cluster -- --dpus $(DPUS) $(CLUSTER)

check-soft:
	@tests/prerequisites.sh soft

soft: check-soft open-vswitch qemu guest ## a DPU in software and two guests that reach each other through it, on a terminal until Ctrl-C
	$(CARGO) build --workspace --locked --bins
	@$${CARGO_TARGET_DIR:-target}/debug/soft $(SOFT)

fmt: ## is the tree formatted?
	$(CARGO) fmt --all --check

lint: ## clippy over all targets, warnings denied
	$(CARGO) clippy --workspace --all-targets --locked -- $(DENY)

docs: ## rustdoc, warnings denied
	RUSTDOCFLAGS="$(DENY)" $(CARGO) doc --workspace --no-deps --locked

# Some tests run the workspace's programs, and `cargo test` alone builds only those of packages that test them.
# Cargo runs one test program after the other, which leaves half of two processors unused: two run at a time here. The halves are of
# the alphabet, so that each program is in one of them.
unit: ## all tests
	$(CARGO) build --workspace --locked --bins --tests
	$(CARGO) test --workspace --locked --lib --bins
	$(CARGO) test --workspace --locked --doc
	$(MAKE) --no-print-directory -j2 tests-a-o tests-p-z

tests-a-o: TESTS = [a-o]*
tests-p-z: TESTS = [!a-o]*
tests-a-o tests-p-z:
	$(CARGO) test --workspace --locked --test '$(TESTS)' 2>&1 | sed -u 's/^/$@: /'

generate: ## write what is generated: manifests/crds, and of docs reference.md, virtnet.md and virtnet-conf.md
	$(CARGO) run -q -p virtnet-crds --bin crdgen
	UPDATE_GOLDEN=1 $(CARGO) test -q -p virtnet-controller -p virtnet-cli --test reference

soak: soak-simulation soak-switch soak-fleet soak-datapath soak-guests ## what takes longer than `make test` may: its last results are in docs/status.md

soak-simulation: ## the seeded simulation over SEEDS seeds (20000)
	VIRTNET_SEEDS=$(SEEDS) $(CARGO) test --release --locked -p virtnet-tests --test simulation -- --nocapture

soak-switch: check open-vswitch ## on a real switch: ten minutes at rest, 100 kills of each daemon and of the agent, more fuzzing
	VIRTNET_REST_SECONDS=600 VIRTNET_KILLS=100 VIRTNET_FUZZ_SECONDS=600 \
		$(CARGO) test --locked -p virtnet-tests --test real_switch -- --nocapture agent::five churn fuzz

soak-fleet: check control-plane ## on real API servers: four DPUs as the README shows, and FLEETS (200) fleets in turmoil
	$(CARGO) build --workspace --locked --bins --tests
	$(CARGO) test --workspace --locked --test readme -- --ignored
	VIRTNET_FLEETS=$(FLEETS) $(CARGO) test --workspace --locked --test operator -- --ignored --nocapture turmoil::

soak-datapath: check dpdk ## functions in software: the worker killed and updated 1000 times, a million packets of testpmd's in each case, more fuzzing
	VIRTNET_WORKER_ENDS=1000 RUST_TEST_THREADS=1 \
		$(CARGO) test --release --locked -p virtnet-soft --test soft -- --nocapture kills
	VIRTNET_TESTPMD_PACKETS=1000000 VIRTNET_FUZZ_SECONDS=600 \
		$(CARGO) test --release --locked -p virtnet-soft --test soft -- --nocapture testpmd fuzz

soak-guests: check open-vswitch qemu guest ## real guests: sixteen functions ten times over, and the bus by itself, with VFs and a QEMU that is killed
	$(CARGO) build --workspace --locked --bins
	VIRTNET_ROUNDS=10 $(CARGO) test --workspace --locked --test soft -- --nocapture many
	VIRTNET_ROUNDS=10 $(CARGO) test --workspace --locked --test guests -- --include-ignored --nocapture

bench-switch: check open-vswitch ## 504 ports by the guide's commands, one bare transaction and the agent, ROUNDS (5) times
	$(CARGO) run -q --release --locked -p virtnet-tests --bin bench_switch -- --rounds $(ROUNDS)

bench-fleet: check control-plane ## DEVICES (1000,5000,20000) devices: what binding, start and rest cost an operator
	$(CARGO) build -q --workspace --locked --bins
	@$(CARGO) run -q --locked -p virtnet-tests --bin bench_fleet -- --devices $(DEVICES)

bench-datapath: check dpdk ## CPU a packet of a function in software beside DPDK and bare reads and writes of a TAP; writes docs/datapath.svg
	@$(CARGO) bench -q --locked -p virtnet-soft --bench datapath -- --peer --plot $(CURDIR)/docs/datapath.svg

deny: ## licences, sources and duplicates of dependencies (needs cargo-deny)
	$(CARGO) deny --offline check bans licenses sources
