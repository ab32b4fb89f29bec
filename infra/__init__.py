"""Settings, profiles, local services and images: where things run."""
