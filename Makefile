# Two commands: `make demo` and `make test`. Both install what they need first (Debian
# packages where root allows it, a virtual environment in .venv, the C core); the
# second time that costs nothing.
PY := .venv/bin/python
APT_RUN := python3-venv python3-dev gcc libc6-dev libssl-dev make iproute2 nftables iputils-ping
APT_TEST := redis-server procps util-linux systemd traceroute tcpdump iptables conntrack ethtool clang libclang-rt-dev dnsmasq-base etcd-server bird2 frr chromium chromium-driver qemu-system-x86 lz4 mtools openssh-client grub-common

.PHONY: demo test setup setup-test plugin lint bench perf perf-vpp perf-pair perf-remap perf-faults fuzz appliance test-appliance clean
demo: setup
	$(PY) -m ipshare demo $(DEMO)

# JOBS: 3 as root where there is no VPP: lanes of the lab's, which mostly wait, and unit tests beside them (tests/conftest.py). Without
# root the lab starts pytest again in a user namespace, and VPPs poll. JOBS= runs one test at a time.
JOBS ?= $(if $(VPP),,$(if $(filter 0,$(shell id -u)),3))
test: setup-test lint $(if $(VPP),plugin)
	$(PY) -m pytest tests $(if $(JOBS),-n $(JOBS) --dist loadscope) $(PYTEST)

setup: .venv/.installed ipshare/_bin/ipshare-engine
setup-test: .venv/.installed-test ipshare/_bin/ipshare-engine

.venv/.installed: pyproject.toml appliance/packages.sh
	@sh appliance/packages.sh $(APT_RUN)
	@test -x $(PY) || python3 -m venv .venv
	@echo "installing Python packages into .venv"
	@$(PY) -m pip install --quiet --disable-pip-version-check setuptools wheel cffi
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e .
	@touch $@

.venv/.installed-test: .venv/.installed pyproject.toml Makefile
	@sh appliance/packages.sh $(APT_RUN) $(APT_TEST)
	@sh tests/guest/kernel.sh build/guest
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[test]'
	@touch $@

# The C core: the extension module and the engine, rebuilt when a source is newer.
NATIVE := $(wildcard native/*.c native/*.h native/*.def native/engine/*.c native/engine/*.h native/tap/*.c native/tap/*.h native/rt/*.c native/rt/*.h native/flows/*.c native/flows/*.h native/natlog/*.c native/natlog/*.h native/build_cffi.py)
ipshare/_bin/ipshare-engine: $(NATIVE) setup.py | .venv/.installed
	@echo "building the C core"
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@

# The VPP plugin, where VPP and its development files are installed: the vpp on PATH, or IPSHARE_VPP.
VPP := $(if $(IPSHARE_VPP),$(IPSHARE_VPP),$(shell command -v vpp))
VPP_PREFIX = $(abspath $(dir $(realpath $(VPP)))/..)
# SAN=undefined: built with UBSan into build/plugin-undefined, for tests/vpp/test_sanitized_vpp.py.
PLUGIN := build/plugin$(if $(SAN),-$(SAN))
SANITIZED = -DCMAKE_C_FLAGS=-fsanitize=$(SAN) '-DCMAKE_C_FLAGS_RELEASE=-O1 -g1 -fno-omit-frame-pointer'
plugin:
	@mkdir -p build
	@test -n "$(VPP)" || { echo "there is no vpp on PATH: docs/vpp.md says how to install it" >&2; exit 1; }
	@sh appliance/packages.sh cmake
	@cmake -S plugins/ipshare -B $(PLUGIN) -DCMAKE_PREFIX_PATH=$(VPP_PREFIX) -DCMAKE_INSTALL_PREFIX=$(VPP_PREFIX) $(if $(SAN),$(SANITIZED)) >$(PLUGIN).log 2>&1 \
	  && cmake --build $(PLUGIN) --parallel $$(nproc) >>$(PLUGIN).log 2>&1 || { tail -20 $(PLUGIN).log >&2; exit 1; }

lint: setup-test
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo

# A bootable image (docs/appliance.md): build/appliance. APPLIANCE="--update-key KEY.pub": more options. Updates are signed with
# build/appliance-work/update.key, made here, unless another key is named.
UPDATE_KEY := build/appliance-work/update.key
APT_APPLIANCE := mmdebstrap squashfs-tools mtools fdisk e2fsprogs qemu-utils grub-common grub-pc-bin grub-efi-amd64-bin xorriso
appliance: setup
	@sh appliance/packages.sh $(APT_APPLIANCE)
	@mkdir -p build/appliance-work && test -f $(UPDATE_KEY) || $(PY) -m ipshare appliance key $(UPDATE_KEY)
	$(PY) -m ipshare appliance build --update-key $(UPDATE_KEY).pub $(APPLIANCE)

# Boots images in QEMU, two at once at most (docs/appliance.md). IPSHARE_EMULATE=1 where KVM does not work: very slow.
test-appliance: setup-test
	@sh appliance/packages.sh $(APT_APPLIANCE) qemu-system-x86 ovmf
	IPSHARE_APPLIANCE=build/appliance IPSHARE_APPLIANCE_KEY=$(UPDATE_KEY) $(PY) -m pytest tests/appliance --timeout=7200 $(PYTEST)

bench: setup-test
	$(PY) -m ipshare bench $(BENCH)

perf: setup-test
	$(PY) -m pytest perf --ignore=perf/vpp $(PYTEST)

# Beside VPP's own translators; needs an installed VPP and the plugin. Figures: build/perf-vpp.{txt,json,svg}
perf-vpp: setup-test
	$(PY) -m pytest perf/vpp --timeout=1200 $(PYTEST)

# Takeovers of a pair, beside keepalived and conntrackd where they are installed; root, seven minutes
perf-pair: setup-test
	$(PY) -m perf.pair $(PAIR)

# Remaps there and back under load, beside plain rules of nftables; root, half an hour for each engine
# (make perf-remap REMAP="--engine vpp --only ipshare")
perf-remap: setup-test
	$(PY) -m perf.remap $(REMAP)

# Each process of an installation killed, each link cut, one at a time, under 500 connections; root, a quarter of an hour or more
perf-faults: setup-test
	$(PY) -m perf.faults $(FAULTS)

# One fuzz target for as long as you like: make fuzz TARGET=fuzz_parse SECONDS=3600
SECONDS ?= 600
fuzz: setup-test
	$(MAKE) -s -C native fuzz
	$(PY) -m tests.cases.seeds build/seeds
	mkdir -p build/corpus/$(TARGET)
	native/build/fuzz/$(TARGET) -max_total_time=$(SECONDS) -artifact_prefix=build/ build/corpus/$(TARGET) build/seeds/$(TARGET)

clean:
	rm -rf build native/build ipshare/_bin ipshare/core/_native*.so *.egg-info
