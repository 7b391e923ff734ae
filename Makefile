# The two commands of the README are `make demo` and `make test`; both set up what they need (see .ci/setup).
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

.PHONY: help setup demo test e2e unit soak image bench proto docs manifests format clean
help: ## what there is to make
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Debian packages, Python environment, csi-sanity where Go is there
	@.ci/setup

demo: setup ## pack a real model, serve it, pull it, publish it over CSI, load it from the mount
	$(PYTHON) e2e/demo.py

test: setup ## every test: unit, root, end to end; linters and types among them
	$(PYTEST) -n 2 --dist worksteal tests e2e

e2e: ## every scenario on a real Kubernetes node, which it builds from Go modules first (20 minutes, once)
	@.ci/setup e2e
	$(PYTEST) -n 2 --dist loadscope --no-loadscope-reorder -m kubernetes e2e

unit: setup ## the tests that need neither root nor image tools
	$(PYTEST) -m "not root and not e2e" tests

soak: setup ## kill a pull at 200 random moments
	$(PYTEST) -m soak --timeout 3600 e2e

image: setup ## the driver's image and its bill of materials, into dist/ (BASE=… to build on a Python image instead of a Debian tree)
	$(PYTHON) -m e2e.image dist $(if $(BASE),--base '$(BASE)') $(if $(TAG),--tag '$(TAG)') $(if $(SOURCE),--source '$(SOURCE)')

bench: setup ## compare with containerd, skopeo and curl; writes docs/performance.md's table and plot
	$(PYTHON) -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(PYTHON) -m benchmarks

proto: setup ## generate Python code from proto/
	$(PYTHON) proto/generate.py

docs: setup ## generate docs/configuration.md, docs/cli.md and docs/metrics.md
	$(PYTHON) -m csi_model.config.document > docs/configuration.md
	$(PYTHON) -m csi_model.cli.document > docs/cli.md
	$(PYTHON) -m csi_model.metrics.document > docs/metrics.md

manifests: setup ## render deploy/kubernetes from the chart, with its values' schema and table; needs helm
	$(PYTHON) -m deploy.chart

format: setup ## format and fix what can be fixed
	$(PYTHON) -m ruff format . && $(PYTHON) -m ruff check --fix .

clean: ## remove the Python environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
