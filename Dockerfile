# The image of gemini-batch-mcp: MCP on stdio by default (`docker run -i`), over HTTP with `serve --transport http`.
# What it brings along are the versions of constraints.txt, each checked by its hash.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY manifests/readme.py manifests/readme.py
COPY server server
# The pins hold from Python 3.11 on: no such Python has to be downloaded to read them.
ENV UV_PYTHON_DOWNLOADS=never
# uv first, by its own pin; then what the package needs to run, without what only tests and development need.
RUN awk '/^[a-z]/ { ours = /^uv==/ } ours' constraints.txt > uv.txt \
 && pip install --no-cache-dir --require-hashes --requirement uv.txt \
 && uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
      --constraint constraints.txt --output-file pins.txt pyproject.toml \
 && uv venv --quiet /opt/gemini-batch-mcp \
 && uv pip install --quiet --no-cache --compile-bytecode --python /opt/gemini-batch-mcp --require-hashes --requirement pins.txt \
 && uv pip install --quiet --no-cache --compile-bytecode --python /opt/gemini-batch-mcp --no-deps .

FROM python:${PYTHON}-slim
LABEL io.modelcontextprotocol.server.name="io.github.gemini-batch-mcp/gemini-batch-mcp" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/gemini-batch-mcp/gemini-batch-mcp"
COPY --from=build /opt/gemini-batch-mcp /opt/gemini-batch-mcp
COPY manifests/health.py /opt/health.py
# /data is the one directory that may be read and written, /state the ledger and the answers: mount both to keep them.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /state batch \
 && install --directory --owner batch --group batch /data /state
ENV PATH=/opt/gemini-batch-mcp/bin:$PATH \
    HOME=/state \
    GEMINI_BATCH_HOME=/state \
    GEMINI_BATCH_ROOTS=/data
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/state"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["python", "/opt/health.py"]
ENTRYPOINT ["gemini-batch-mcp"]
