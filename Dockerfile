# The kernel, to run a project in /app. `docs/deploy.md` shows how to use it and how to build on it.
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/src/constraints.txt PIP_BUILD_CONSTRAINT=/src/constraints.txt
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels . \
    && python -m venv /opt/agentscope \
    && /opt/agentscope/bin/pip install /wheels/*.whl \
    && /opt/agentscope/bin/python -m compileall -q /opt/agentscope/lib

FROM python:3.13-slim
# The file system may be read-only: nothing is compiled when it is imported, and what is written goes to the volumes.
ENV PATH=/opt/agentscope/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN groupadd --system --gid 10001 agentscope \
    && useradd --system --uid 10001 --gid agentscope --no-create-home --home-dir /tmp --shell /usr/sbin/nologin agentscope \
    && install --directory --owner agentscope --group agentscope /app /data
COPY --from=build /opt/agentscope /opt/agentscope
WORKDIR /app
# By number: who forbids root, as Kubernetes can, must be able to see that this is not root.
USER 10001:10001
VOLUME ["/data", "/tmp"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; there = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('AGENTSCOPE_SERVER__PORT', '8080')), timeout=4); there.request('GET', '/health'); sys.exit(there.getresponse().status != 200)"]
ENTRYPOINT ["agentscope", "run", "/app", "--host", "0.0.0.0"]
