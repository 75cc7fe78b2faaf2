# An image for the driver and all workers: all but the extras demo, decord and tensorboard.
#
#   docker build -t REGISTRY/visavis:VERSION .
#
# tests/packaging/test_dockerfile.py lays out what is copied here, builds the program from it, and resolves what the
# last step of the installation asks for.
FROM python:3.12-slim

# wget: KubeRay's health checks. libgomp1: OpenMP, which not every wheel brings along.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 wget && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv

WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY visavis visavis
COPY schemas schemas
COPY training training
COPY stages stages
COPY pipeline pipeline
COPY configs configs
# In the project's folder, uv takes from pyproject.toml the overrides by which FaceMesh and WhisperX fit the rest, and
# the date that pins versions. By plain pip there is neither of the two.
RUN uv pip install --system --no-cache --group overridden ".[asr,cluster,embedded]"

# rayjob.yaml runs it as this number, with nothing to write but /tmp and the home
RUN useradd --create-home --uid 1000 visavis
USER 1000:1000
WORKDIR /home/visavis
