package nbd.storage;

/**
 * An export that a backend names.
 *
 * @param name the name that opens it
 * @param description a text for people; may be empty
 */
public record ListedExport(String name, String description) {}
