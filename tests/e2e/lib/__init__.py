"""What the end-to-end tests share: independent protocol peers, process wrappers, servers, network namespaces."""
