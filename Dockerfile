# Page: what the gateway serves to browsers.
FROM node:22-slim AS page
WORKDIR /build
COPY clients ./clients
RUN cd clients/page && npm ci --ignore-scripts && npm run build

# Build: the locked dependencies and runcast itself, in one directory to copy.
FROM python:3.11-slim AS build
WORKDIR /build
RUN pip install --no-cache-dir "uv>=0.9,<1"
ENV UV_PROJECT_ENVIRONMENT=/opt/runcast UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-install-project --extra s3
COPY hatch_build.py ./
COPY src ./src
COPY --from=page /build/src/runcast/web/built ./src/runcast/web/built
RUN uv sync --frozen --no-editable --extra s3

# Run: no compiler, no package manager of Python's, no root.
FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin runcast \
    && install -d -o 10001 -m 700 /var/lib/runcast/objects
COPY --from=build /opt/runcast /opt/runcast
ENV PATH=/opt/runcast/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["runcast"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
