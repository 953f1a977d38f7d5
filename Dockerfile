# One image for every process of an installation; the command says which one it is.
#
#   docker build -t aifap:0.1.0 .
#
# A release names the base image by its digest: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# The build backend, from the same lock as everywhere else.
COPY requirements-dev.txt ./
RUN awk '/^setuptools==/ {found = 1} found {print} found && !/\\$/ {exit}' requirements-dev.txt > build.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r build.txt
# The lock before the sources: it changes seldom. What exists as source only becomes a wheel here,
# with that backend and no other, so that nothing unlocked runs.
COPY requirements.txt ./
RUN /opt/build/bin/pip wheel --require-hashes --no-build-isolation --use-pep517 \
        --wheel-dir /wheels -r requirements.txt \
    && python -m venv --without-pip /opt/aifap \
    && /opt/build/bin/pip --python /opt/aifap/bin/python install --no-index --no-deps /wheels/*.whl
COPY pyproject.toml README.md ./
COPY api ./api
COPY dashboards ./dashboards
COPY module ./module
COPY monitoring ./monitoring
COPY trading ./trading
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /own . \
    && /opt/build/bin/pip --python /opt/aifap/bin/python install --no-index --no-deps /own/*.whl \
    && /opt/aifap/bin/python -m compileall -q /opt/aifap/lib

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 aifap \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin aifap \
    && install -d -o 10001 -g 10001 -m 0700 /data
COPY --from=build /opt/aifap /opt/aifap
COPY deploy/image/gunicorn.conf.py /app/gunicorn.conf.py
ENV PATH=/opt/aifap/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1 \
    OMP_NUM_THREADS=1 \
    AIFAP_DATA_DIR=/data \
    AIFAP_API_HOST=0.0.0.0 \
    AIFAP_API_PORT=8888 \
    AIFAP_DASHBOARD_PORT=8080
WORKDIR /app
USER 10001:10001
EXPOSE 8888 8080
# The platform API. Others:
#   gateway, market   python -m api.compose --host 0.0.0.0 --port 8888   (AIFAP_SERVICES says which)
#   session host      python -m trading.session_host
#   one session       python -m trading.rebalancing_main --session ID
#   finwatcher        python -m monitoring --all
#   migrations        aifap db migrate --data /data
CMD ["gunicorn", "--config", "/app/gunicorn.conf.py", "api.asgi:application()"]
