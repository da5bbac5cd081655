# make help lists the targets. The targets run, build and test need only Go, git and make.

GO    ?= go
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/capture

# The version that the binary shows.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X github.com/opencapture/capture/app.version=$(VERSION)

# The race detector needs a C compiler. Without one, Go turns cgo off and the tests run without the race detector.
RACE = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

# The linter is built with the installed Go, since a linter that was built with an older Go refuses newer code.
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT = $(CACHE)/golangci-lint/$(GOLANGCI_LINT_VERSION)-$(shell $(GO) env GOVERSION)/golangci-lint

# The service is one module. The suites have modules of their own, so that the libraries that only they need stay out of
# the service's go.mod. There is no go.work: it would build the service with the versions that the suites ask for.
MODULES := . testkit/chaos testkit/sdk
define each
$(foreach module,$(MODULES),cd $(module) && $(1)
)
endef

# How long the tests of one package may run. It is a guard against hanging, and no measure of speed.
TEST_TIMEOUT := 20m
# The same for a suite.
SUITE_TIMEOUT := 60m
# The binary that the tests start as a process. It is built before the clock of a test runs, and the build shares its
# cache with make run.
TEST_BINARY = CAPTURE_TEST_BINARY='$(CURDIR)/bin/capture'

# The build tags of the suites.
TAGS := -tags sdk,chaos,powercut,hostile,state

# How long one benchmark runs: a time or, as 100x, a number of iterations.
BENCHTIME ?= 1s
# FUZZTIME is how long one fuzz target runs: a time or, as 20000x, a number of inputs. FUZZ chooses the targets, as a
# regular expression for their names. Up to Go 1.26 a target that ends by time fails now and then with "context deadline
# exceeded" although it has found nothing (go.dev/issue/75804). A finding always writes its input, so the recipe can
# tell the two apart.
FUZZTIME ?= 200000x
FUZZ ?= .*

.DEFAULT_GOAL := help
.PHONY: help run build test check bench bench-state fuzz integration sdk-e2e state chaos chaos-long powercut \
	powercut-long hostile services-up services-down

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build and serve, with nothing else needed; ARGS="--config configs/dev.yaml" passes arguments
	@exec bin/capture serve $(ARGS)

build: ## Build bin/capture
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/capture .

# All packages and their tests are compiled first, because a compiler takes the whole machine and would slow down the
# tests that run beside it. Only go list compiles without linking or running anything.
test: build ## Run the unit tests, which need no service, with the race detector if there is a C compiler
	$(call each,$(GO) list $(RACE) -test -export ./... >/dev/null)
	$(call each,$(TEST_BINARY) $(GO) test $(RACE) -timeout $(TEST_TIMEOUT) ./...)

check: ## Check the format, go vet, the linters, go.mod and the dependency rule
check: $(GOLANGCI_LINT)
	$(GOLANGCI_LINT) fmt --diff
	$(call each,$(GO) vet $(TAGS) ./...)
	$(call each,$(GOLANGCI_LINT) run)
	$(call each,$(GO) mod tidy -diff)
	$(GO) test -count=1 -run '^TestDependencyRule' ./app/standard

bench: ## Run the benchmarks, each for BENCHTIME (1s)
	$(GO) test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...

fuzz: ## Run the fuzz targets that match FUZZ (all), one after the other, each for FUZZTIME (200000x: so many inputs)
	@list=$$($(GO) test -list '^Fuzz' ./...) || { printf '%s\n' "$$list"; exit 1; }; \
	targets=$$(printf '%s\n' "$$list" | \
		awk '/^Fuzz/ { target[n++] = $$1 } $$1 == "ok" { while (n) print $$2, target[--n] }' | \
		grep -E ' ($(FUZZ))$$') || { echo "no fuzz target matches $(FUZZ)"; exit 1; }; \
	printf '%s\n' "$$targets" | while read -r package target; do \
		echo "$$package $$target"; \
		log=$$($(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x \
			"$$package" 2>&1 </dev/null) && \
			{ printf '%s\n' "$$log" | tail -n 3; continue; }; \
		printf '%s\n' "$$log"; \
		case "$$log" in *"Failing input written"*) exit 1;; *"context deadline exceeded"*) ;; *) exit 1;; esac; \
	done

# The packages with tests that can use real services.
INTEGRATION := ./modules/kafka/... ./modules/store/... ./testkit/...

integration: build ## Run the tests against a real Kafka and Redis, started for them unless services-up has
	testkit/services/services.sh run env $(TEST_BINARY) \
		$(GO) test $(RACE) -count=1 -timeout $(SUITE_TIMEOUT) $(INTEGRATION)

# Without the name of a package, go test shows what the tests print: the table.
sdk-e2e: ## Drive the service with real SDKs, installed once into the cache, and compare with what is in Kafka
	cd testkit/sdk && ./install.sh run $(GO) test $(RACE) -tags sdk -count=1 -parallel 4 -timeout $(SUITE_TIMEOUT)

# The tests of the next suites print a line for each scenario, and go test shows these too. RUN=NoAcknowledged/kill-9
# plays one scenario alone.
RUN ?= .

state: ## Kill nodes, Redis and Kafka at random, and look for an event over a limit or a share that is lost; RUN=REGEXP
	cd testkit/state && $(GO) test -tags state -count=1 -run '$(RUN)' -timeout $(SUITE_TIMEOUT)

chaos: ## Break Kafka, the disk and the service under load, and look for acknowledged events in Kafka; RUN=REGEXP
	cd testkit/chaos && $(GO) test -tags chaos -count=1 -run '$(RUN)' -timeout $(SUITE_TIMEOUT)

chaos-long: ## The same with faults of a minute, 100 kills, 5 GiB in the spool, 10 minutes without Kafka: 90 minutes
	cd testkit/chaos && $(GO) test -tags chaos -count=1 -run '$(RUN)' -timeout 3h -chaos.long

# While CPU time is measured, the service has the first core for itself. Everything else has the others, if there are
# any.
OTHERS = 1-$(shell expr $$(nproc) - 1)
APART  = $(shell taskset -c 0 taskset -c $(OTHERS) true 2>/dev/null && echo yes)

bench-state: build ## Measure what the shared state costs, in Redis and in CPU time; ARGS="-parts cpu" for a part
	$(if $(APART),taskset -c $(OTHERS)) testkit/services/services.sh run $(GO) run ./testkit/benchstate \
		$(if $(APART),-core 0) $(ARGS) bin/capture

powercut: ## Cut the power under the service, and start it on what the disk may hold: 30 cuts each; RUN=REGEXP
	cd testkit/powercut && $(GO) test -tags powercut -count=1 -run '$(RUN)' -timeout $(SUITE_TIMEOUT)

powercut-long: ## The same with 300 cuts a scenario: about ten minutes
	cd testkit/powercut && $(GO) test -tags powercut -count=1 -run '$(RUN)' -timeout 3h -powercut.cuts=300

hostile: ## Attack the service as strangers can, and look at its memory, its answers and a good client; RUN=REGEXP
	cd testkit/hostile && $(GO) test -tags hostile -count=1 -run '$(RUN)' -timeout $(SUITE_TIMEOUT)

services-up: ## Start a real Kafka and Redis on free ports and print their addresses
	@testkit/services/services.sh up

services-down: ## End what services-up started and remove its data
	@testkit/services/services.sh down

$(GOLANGCI_LINT):
	GOBIN='$(@D)' $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
