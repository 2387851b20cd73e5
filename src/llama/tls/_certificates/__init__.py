"""Certificates: files, selection by server name, the certificate authority."""
