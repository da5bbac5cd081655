# A static binary and nothing else: no shell, no package manager, no root.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The context of the build has no .git, so the version is an argument:
#   docker build --build-arg VERSION=$(git describe --tags --always) .
ARG VERSION=dev
RUN CGO_ENABLED=0 make build VERSION="$VERSION"
RUN mkdir -p /rootfs/etc/ssl/certs /rootfs/data /rootfs/tmp \
    && chmod 1777 /rootfs/tmp \
    && cp bin/capture /rootfs/capture \
    && cp /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ \
    && echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' > /rootfs/etc/passwd \
    && echo 'nonroot:x:65532:' > /rootfs/etc/group

FROM scratch
COPY --from=build /rootfs /
COPY --from=build --chown=65532:65532 /rootfs/data /data
USER 65532:65532
# Relative paths in the configuration, such as the default ./data, are below this directory.
WORKDIR /
VOLUME /data
# 8000 takes events. 8001 is the operators' listener, which is on loopback until admin.listen says otherwise.
EXPOSE 8000 8001
# For Docker. Kubernetes ignores it, and probes liveness and readiness by HTTP, at /_liveness and /_readiness. The command
# reads transport.listen from the environment. A container whose --config changes that key needs a health check of its
# own: ["CMD", "/capture", "healthcheck", "--config", "/etc/capture.yaml"].
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/capture", "healthcheck"]
ENTRYPOINT ["/capture"]
