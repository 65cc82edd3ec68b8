# syntax=docker/dockerfile:1
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
COPY projections projections
# The commit that `projector_build_info` names: docker build --build-arg COMMIT="$(git rev-parse --short HEAD)"
ARG COMMIT=unknown
ENV PROJECTOR_COMMIT=${COMMIT}
# Mounted caches keep dependencies from one build to the next; the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin projector && cp target/release/projector /projector

FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="projector" \
      org.opencontainers.image.description="Read models that follow an append-only Postgres table" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /projector /usr/local/bin/projector
COPY projections /etc/projector/projections
WORKDIR /etc/projector
EXPOSE 4400
STOPSIGNAL SIGTERM
# There is no shell and no curl in here; the binary asks its own /readyz.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
    CMD ["/usr/local/bin/projector", "status", "--check"]
ENTRYPOINT ["/usr/local/bin/projector"]
CMD ["run"]
