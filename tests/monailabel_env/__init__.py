"""Stand-ins for packages that monailabel imports; nothing here is a test, and nothing may import it but its server."""
