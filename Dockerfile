# oomwatch: one static binary in an empty image. `--target worker` builds the demo worker instead.
#   docker build --build-arg COMMIT="$(git rev-parse HEAD)" -t oomwatch:0.1.0 .

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
ARG COMMIT=unknown
# glibc is linked in whole. Names resolve without NSS libraries since glibc 2.34, as long as there is no nsswitch.conf.
# The target is named because flags would reach build scripts and macros too otherwise, and those cannot be static.
RUN target="$(rustc --print host-tuple)" \
    && OOMWATCH_COMMIT="$COMMIT" RUSTFLAGS="-C target-feature=+crt-static" \
       cargo build --locked --release --bin oomwatch --target "$target" \
    && cp "target/$target/release/oomwatch" /oomwatch

FROM golang:1.26-bookworm AS worker-build
WORKDIR /src
COPY demo/worker .
RUN CGO_ENABLED=0 go build -trimpath -o /worker .

FROM scratch AS worker
COPY --from=worker-build /worker /worker
USER 10001:10001
ENTRYPOINT ["/worker"]

FROM scratch
LABEL org.opencontainers.image.title="oomwatch" \
      org.opencontainers.image.description="Carries an app's StatsD to Datadog and names its memory leak before the OOM kill" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /oomwatch /oomwatch
# Manifests set the app's own user and group, so that its memory can be read.
USER 65532:65532
# Without them the C library keeps most of the memory that a flood took until the next one (tests/hostile.rs reads them here).
ENV MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=65536
# StatsD on loopback, the page on loopback, health and metrics.
EXPOSE 8125/udp 7070/tcp 9464/tcp
ENTRYPOINT ["/oomwatch"]
