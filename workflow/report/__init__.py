"""What the product `report` is made with: readers of its inputs, its plots, its template."""
