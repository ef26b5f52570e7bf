package nbd.storage;

/**
 * An export that a backend names.
 *
 * @param name by which it is opened
 * @param description a text for people; may be empty
 */
public record ListedExport(String name, String description) {}
