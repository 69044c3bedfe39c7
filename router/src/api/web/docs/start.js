// Swagger UI over this server's own document. Its validator would ask a server elsewhere, so it stays off.

window.SwaggerUIBundle({
  url: "api-doc/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null,
});
