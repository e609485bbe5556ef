"""What a service's database role may do, held against its list: nothing that is not on it, and nothing on it that no statement needs."""
