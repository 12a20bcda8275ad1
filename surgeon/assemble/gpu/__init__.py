"""GPUs: devices, memory, streams and staging buffers."""
