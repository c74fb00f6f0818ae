# The worker's image, and one that fills a stream for demonstrations.
#
#   docker build --target worker -t shardlake .

FROM rust:1.95-bookworm AS build
WORKDIR /src
# What `shardlake --version` calls this build, where the context has no .git directory.
ARG SHARDLAKE_BUILD
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked && cp target/dist/shardlake /usr/local/bin/shardlake

FROM python:3.13-slim-bookworm AS fill
COPY localstack/pins-tools.txt /fill/
RUN pip install --no-cache-dir -r /fill/pins-tools.txt
COPY --from=build /usr/local/bin/shardlake /usr/local/bin/
COPY tests/e2e/common/fill.py /fill/
ENV SHARDLAKE_BIN=/usr/local/bin/shardlake
USER 65534
ENTRYPOINT ["python"]

# The last stage is what `docker build .` builds. Docker sends SIGTERM and kills after 10 s: run it with --stop-timeout 30, since a worker
# may take [stop] within (25 s) to commit and to release its leases. deploy/worker.yaml runs it with a read-only root file system; only
# /tmp is written.
FROM debian:bookworm-slim AS worker
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/shardlake /usr/local/bin/
USER 65534:65534
WORKDIR /tmp
# A volume keeps the owner and the mode of the folder, so that any user can write there.
VOLUME ["/tmp"]
# A worker commits what it has read, releases its leases, and ends within `[stop] within`.
STOPSIGNAL SIGTERM
# Fails only for what a restart can help (docs/status-page.md). Commands that run no worker are not asked: --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["shardlake", "health"]
ENTRYPOINT ["shardlake"]
CMD ["--help"]
