/**
 * Fuzz tests of everything that reads input from outside. In an ordinary build each test takes the
 * seeds in src/test/resources/nbd/fuzz; {@code app/fuzz} looks for more.
 */
package nbd.fuzz;
