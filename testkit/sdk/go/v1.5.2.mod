module github.com/opencapture/capture/testkit/sdk/go

go 1.26.0

require github.com/posthog/posthog-go v1.5.2
