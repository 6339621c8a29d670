"""The native API family under `/api/v1`: whatever the build service can do."""
