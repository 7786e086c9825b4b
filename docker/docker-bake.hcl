// For those who build the context themselves: docker buildx bake --file docker-bake.hcl, in the folder that
// `edgeprune package RUN --output context` made. Read with Docker's bake documentation; not run by edgeprune's tests.

variable "BASE" {
  default = "docker.io/library/python:3.11-slim-bookworm"
}

variable "IMAGE" {
  default = "edgeprune-model"
}

variable "PLATFORM" {
  default = "linux/arm64"
}

target "default" {
  context    = "."
  dockerfile = "Dockerfile"
  tags       = [IMAGE]
  platforms  = [PLATFORM]
  args       = { BASE = BASE }
}
