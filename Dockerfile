# One image for every route: `keystone run` with the route's file mounted at /etc/keystone/route.properties.
#
#   docker build -t keystone .
#   docker run --read-only --stop-timeout 45 -v ./route.properties:/etc/keystone/route.properties:ro -p 9464:9464 keystone
#
# Both stages can be replaced by images of your own: --build-arg BUILDER=... --build-arg RUNTIME=...
# They must have the same C library, or the runtime's must be the newer one; the runtime needs apt-get, and bash for the health check.
ARG BUILDER=rust:1.95-slim-bookworm
ARG RUNTIME=debian:bookworm-slim

FROM ${BUILDER} AS builder
# A C compiler is all that is needed; perl is for OpenSSL's build.
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential perl pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p keystone --bin keystone \
 && strip --strip-debug -o /keystone target/release/keystone

FROM ${RUNTIME}
# Certificates for TLS to Kafka and S3. (Elasticsearch's client brings Mozilla's list with it.)
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/*
COPY --from=builder /keystone /usr/local/bin/keystone

# A number, so that Kubernetes' runAsNonRoot can verify it. Nothing is written outside of mounted volumes.
USER 65532:65532
EXPOSE 9464

# /livez of the admin listener, on the port that the environment says. A route that sets admin.listen in its file needs a check of
# its own. (Kubernetes ignores this and uses its probes.)
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["bash", "-c", "listen=${KEYSTONE_ADMIN_LISTEN:-0.0.0.0:9464}; exec 3<>/dev/tcp/127.0.0.1/${listen##*:} && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]

# Exec form: SIGTERM reaches the worker, which drains, commits and leaves the group.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/keystone"]
CMD ["run", "--config", "/etc/keystone/route.properties"]
