# syntax=docker/dockerfile:1
# Builds two images with the same command: `docker build --target cpu` (the default) and `docker build --target gpu`.

FROM python:3.11-slim-bookworm AS source
WORKDIR /src
RUN python -m venv /opt/reelfind
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY model ./model
COPY indexer ./indexer
COPY service ./service

FROM source AS install-cpu
# Further extras, such as `,milvus`.
ARG EXTRAS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/reelfind/bin/python -m pip install --constraint constraints.txt ".[cpu${EXTRAS}]"

FROM source AS install-gpu
ARG EXTRAS=""
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/reelfind/bin/python -m pip install --constraint constraints.txt ".[gpu${EXTRAS}]"

FROM python:3.11-slim-bookworm AS runtime
# New volumes for the library, for keys and jobs, and for the cache take owner and mode from these folders.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin reelfind \
    && mkdir /library /media /bundles /cache \
    && mkdir --mode 700 /state \
    && chown reelfind:reelfind /library /state /cache
ENV PATH=/opt/reelfind/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HF_HUB_OFFLINE=1 \
    REELFIND_LIBRARY=/library \
    REELFIND_BUNDLES=/bundles \
    REELFIND_CACHE=/cache \
    REELFIND_HOST=0.0.0.0 \
    REELFIND_AUTH=keys \
    REELFIND_STATE=/state \
    REELFIND_MEDIA_ROOTS=/media \
    REELFIND_PORT=8000
USER 10001:10001
EXPOSE 8000
# Checks that the process is alive, not ready: without a library, the service runs and says on /readyz what to do.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['REELFIND_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["reelfind"]
CMD ["serve"]

FROM runtime AS gpu
COPY --from=install-gpu /opt/reelfind /opt/reelfind
# pip installs the CUDA 12 libraries that ONNX Runtime loads here; the driver comes from the host.
ENV LD_LIBRARY_PATH=/opt/reelfind/lib/python3.11/site-packages/nvidia/cublas/lib:/opt/reelfind/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib:/opt/reelfind/lib/python3.11/site-packages/nvidia/cuda_runtime/lib:/opt/reelfind/lib/python3.11/site-packages/nvidia/cudnn/lib:/opt/reelfind/lib/python3.11/site-packages/nvidia/cufft/lib:/opt/reelfind/lib/python3.11/site-packages/nvidia/curand/lib:/opt/reelfind/lib/python3.11/site-packages/nvidia/nvjitlink/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    REELFIND_PROVIDER=cuda

FROM runtime AS cpu
COPY --from=install-cpu /opt/reelfind /opt/reelfind
