"""What assistants see: the MCP server, its tools and their texts, resources, and the gate before money."""
