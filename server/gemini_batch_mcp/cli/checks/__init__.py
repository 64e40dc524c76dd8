"""What doctor looks at: findings, this machine, and Gemini with the key that is configured."""
