# The ingest daemon. Build from the repository's root: docker build -f docker/ingest.Dockerfile .
FROM python:3.11-slim
WORKDIR /srv
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY . .
RUN make setup DEVICE=cpu
# The user below may not write here: without this, each start compiles all that it imports again. (Not
# fatal: torch brings a file that only a later Python can compile.)
RUN .venv/bin/python -m compileall -q -j 0 .venv/lib app finetune ingest kb || true
RUN useradd --create-home vademecum && mkdir /data && chown vademecum /data
USER vademecum
ENV VADEMECUM_HOME=/data
ENTRYPOINT [".venv/bin/python", "-m", "ingest.cli", "run"]
