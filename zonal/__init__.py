"""zonal: census blocks x satellite embeddings -> one plain feature table."""
