"""What the gateway costs, beside references and peers; see README.md here."""
