# A static binary and nothing else: no shell, no package manager, no root. There is no HEALTHCHECK: the orchestrator
# probes liveness and readiness, at /_liveness and /_readiness.
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
ENTRYPOINT ["/capture"]
